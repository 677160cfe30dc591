"""`truelike predict` and `truelike export-model` on kept networks, as a person types them."""

import shutil
from pathlib import Path

import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.support.classifiers import CLASSES, coloured
from truelike import cli
from truelike.paths import ARMS, CLASSIFIER, CONFIG, NETWORKS, WEIGHTS
from truelike.runtime.errors import TruelikeError
from truelike.training.networks import open_classifier
from truelike.training.trained import save_weights, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pictures(classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures beside a verdict's network and an arm with two."""
    shutil.copy(ROOT / "recipes/default.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    places = {CLASSIFIER: 50.0, ARMS / "mixed" / NETWORKS / "0": 40.0}
    places[ARMS / "mixed" / NETWORKS / "3"] = 60.0
    for seed, (place, accuracy) in enumerate(places.items()):
        torch.manual_seed(seed)
        model = open_classifier(classifier, 3, False, 32)
        place.mkdir(parents=True)
        save_weights(model, place / WEIGHTS)
        summary = {"validation_accuracy": accuracy}
        write_config(model, 32, CLASSES, summary, place / CONFIG)
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(coloured(5, 0).pixels):
        Image.fromarray(pixels).save(tmp_path / f"pictures/{number}.png")
    for other in ("terms.pdf", "._0.png"):  # no pictures, as for data.source
        (tmp_path / "pictures" / other).write_bytes(b"%PDF")
    return tmp_path / "pictures"


def truelike(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_folder_is_classified_by_the_verdict_s_network_or_an_arm_s_best(pictures: Path) -> None:
    said = truelike("predict", "pictures")
    assert said == f"predictions.csv: 5 images, classified by {CLASSIFIER}\n"
    said = truelike("predict", "pictures", "--arm", "mixed", "--out", "made/own.csv")
    assert f"classified by {ARMS / 'mixed' / NETWORKS / '3'}" in said
    tables = [pd.read_csv(file) for file in ("predictions.csv", "made/own.csv")]
    for table in tables:
        assert table.columns.tolist() == ["path", "class", *(f"p:{name}" for name in CLASSES)]
        assert table["path"].tolist() == [f"{number}.png" for number in range(5)]
        assert table.iloc[:, 2:].sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (tables[0].iloc[:, 2:].to_numpy() != tables[1].iloc[:, 2:].to_numpy()).any()
    with pytest.raises(TruelikeError, match="there is no such arm"):
        truelike("predict", "pictures", "--arm", "none")


def test_a_network_is_exported_and_says_the_same(pictures: Path) -> None:
    said = truelike("export-model", "net.onnx", "--arm", "mixed")
    assert said.startswith(f"net.onnx: {ARMS / 'mixed' / NETWORKS / '3'}; probabilities differ")
    session = onnxruntime.InferenceSession("net.onnx")
    pixels = coloured(5, 0).pixels
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: pixels})
    truelike("predict", "pictures", "--arm", "mixed")
    expected = pd.read_csv("predictions.csv").iloc[:, 2:].to_numpy()
    assert probabilities == pytest.approx(expected, abs=1e-4)

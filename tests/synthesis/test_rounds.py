"""Rounds: what a round's replica is made of, and that images of earlier rounds stay."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from ruamel.yaml import YAML

from stages import round as round_stage
from tests.support.jobs import make_job
from truelike.config import load_params, parse_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml
from truelike.sharing.selection import read_selection
from truelike.synthesis.jobs import job_of, round_job
from truelike.synthesis.regenerate import regenerate
from truelike.training.images import load_kept
from truelike.training.trained import save_weights, write_config

ROOT = Path(__file__).resolve().parents[2]
ROUND = {"after": "real", "adds_to": "synthetic", "replica": 7, "criterion": "loss"}
ROUNDS = {
    "first": ROUND | {"allocation": "uncertain"},
    "second": ROUND | {"allocation": "each", "adds_to": "rounds/first", "replica": 8},
}


def settings(**changes: Any) -> dict[str, Any]:
    raw = read_yaml(ROOT / "recipes/default.yaml") | {"rounds": ROUNDS}
    raw["train"]["keep"] = "all"
    raw["synthesize"] |= {"steps": 2, "replicas": [0], "batch_size": 4, "budget": 5}
    raw["synthesize"]["feedback"]["weight"] = 0.1
    return raw | changes


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"after": "none"}, r"rounds\.first\.after: no arm 'none'"),
        ({"adds_to": "rounds/none"}, r"rounds\.first\.adds_to: no other round 'none'"),
        ({"adds_to": "rounds/first"}, r"rounds\.first\.adds_to: no other round 'first'"),
        ({"replica": 0}, r"rounds\.first\.replica: 0 is made already"),
        ({"replica": 8}, r"rounds\.second\.replica: 8 is made already"),
        ({"adds_to": "naive"}, r"rounds\.first\.adds_to"),
    ],
)
def test_rounds_that_cannot_be(change, problem):
    assert parse_params(settings()).rounds
    rounds = ROUNDS | {"first": ROUNDS["first"] | change}
    with pytest.raises(TruelikeError, match=problem):
        parse_params(settings(rounds=rounds))


def test_rounds_need_networks_that_validation_did_not_choose():
    raw = settings()
    for keep in ("best", "none"):
        raw["train"]["keep"] = keep
        with pytest.raises(TruelikeError, match=f"needs train.keep 'all', found '{keep}'"):
            parse_params(raw)


@pytest.fixture
def project(generator, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project where replica 0 is made and the arm real is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    make_job(generator, real, tmp_path / "outputs")
    samples = [
        Sample(key, int(label), real.pixels(row), {"source": f"{key}.png"})
        for row, (key, label) in enumerate(zip(real.keys, real.labels, strict=True))
    ]
    write_image_set(tmp_path / "outputs/real/train", samples, real.class_names)
    torch.manual_seed(0)
    network = tmp_path / "outputs/train/real/networks/0"
    network.mkdir(parents=True)
    model = timm.create_model("test_resnet", num_classes=2)
    save_weights(model, network / "model.safetensors")
    write_config(model, 16, real.class_names, {}, network / "config.json")
    with (tmp_path / "params.yaml").open("w") as file:
        raw = settings()
        raw["models"] |= {
            "generator": str(generator),
            "accelerator": str(ROOT / "models/none.yaml"),
        }
        YAML().dump(raw, file)
    made = [
        Sample(f"{key}-r0", int(label), real.pixels(row), {"source_key": key})
        for row, (key, label) in enumerate(zip(real.keys, real.labels, strict=True))
    ]
    write_image_set(tmp_path / "outputs/synthetic/0", made, real.class_names)
    table = undecided(ImageSet("outputs/synthetic/0"))
    table.loc[2, "keep"] = False
    write_table(tmp_path / "outputs/selection/synthetic.parquet", table)
    return tmp_path


def run_round(name: str) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["round", name])
        round_stage.main()
    return pd.read_parquet(f"outputs/selection/rounds/{name}.parquet")


def test_rounds_add_up_and_their_images_come_again(project: Path, real: ImageSet) -> None:
    first, second = run_round("first"), run_round("second")
    folders = ["outputs/synthetic/0", "outputs/rounds/first/images", "outputs/rounds/second/images"]
    assert first["folder"].unique().tolist() == folders[:2]
    assert second["folder"].unique().tolist() == folders
    assert second.iloc[: len(first)].equals(first)
    assert len(first) == len(real) + 5
    assert len(second) == len(real) + 10
    assert second["key"].is_unique
    assert not first["keep"][2]
    assert len(load_kept(second, real.class_names)) == len(second) - 1
    made = ImageSet(folders[1])
    assert made.problems() == []
    assert set(made.index["replica"]) == {7}
    assert set(made.index["feedback"]) == {"loss"}
    assert made.index["sha256"].tolist() == first["sha256"][-5:].tolist()
    assert set(read_selection(made)["key"]) == set(first["key"])
    again = regenerate(job_of(load_params(), made.folder), made.folder, made.keys[2])
    np.testing.assert_array_equal(again, made.pixels(2))


def test_the_job_of_a_set_that_the_parameters_no_longer_name_is_refused():
    params = parse_params(settings())
    for folder, section in (("partial/content", "partial"), ("rounds/x/images", "rounds")):
        with pytest.raises(TruelikeError, match=f"{section}: there is no '(content|x)'"):
            job_of(params, Path("outputs") / folder)


def test_a_round_that_nothing_guides_is_a_replica_like_any_other():
    off = ROUND | {"allocation": "each", "criterion": "off"}
    job = round_job(parse_params(settings(rounds={"first": off})), "first")
    assert not job.settings.feedback.is_on
    assert job.allocation == Path("outputs/rounds/first/allocation")


def test_the_job_of_a_round_is_found_whatever_its_name():
    for name in ("naive", "partial", "first"):
        params = parse_params(settings(rounds={name: ROUNDS["first"]}))
        job = job_of(params, Path("outputs/rounds") / name / "images")
        assert (job.stage, job.allocation) == ("round", Path(f"outputs/rounds/{name}/allocation"))

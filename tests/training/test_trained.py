"""Trained networks on disk: timm opens them, a folder is classified, and ONNX says the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.support.classifiers import CLASSES, coloured
from truelike.paths import CONFIG, WEIGHTS
from truelike.runtime.errors import TruelikeError
from truelike.sources.settings import Data
from truelike.training.arms import kept_seeds
from truelike.training.images import LabelledImages, resized
from truelike.training.loop import predict
from truelike.training.networks import input_statistics, open_classifier
from truelike.training.prediction import export_onnx, predict_images
from truelike.training.trained import (
    best_network,
    open_trained,
    publish_network,
    save_weights,
    write_config,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = Data.model_validate(
    {
        "source": "nowhere",
        "resolution": 32,
        "square": "pad",
        "shots": None,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "seed": 0,
        "exclude": [],
    }
)


def save(
    network: str, folder: Path, resolution: int = 32, accuracy: float = 50.0
) -> torch.nn.Module:
    torch.manual_seed(0)
    model = open_classifier(network, 3, False, resolution).eval()
    folder.mkdir(parents=True)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(model, folder / WEIGHTS)
    summary = {"validation_accuracy": accuracy}
    write_config(model, resolution, CLASSES, summary, folder / CONFIG)
    return model


def pointer(name: str, folder: Path) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(f"timm: {name}\n")
    return str(file)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "efficientnet-lite0", "backbone"])
def test_timm_opens_a_kept_network_with_its_names_and_normalisation(
    name: str, tmp_path: Path
) -> None:
    paths = {
        "efficientnet-lite0": str(ROOT / "models/efficientnet-lite0.yaml"),
        "backbone": str(ROOT / "models/backbone"),
    }
    network = paths.get(name) or pointer(name, tmp_path)
    model = save(network, tmp_path / "kept")
    opened = timm.create_model(f"local-dir:{tmp_path / 'kept'}", pretrained=True).eval()
    inputs = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(opened(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    config = json.loads((tmp_path / "kept" / CONFIG).read_text())
    assert config["label_names"] == CLASSES
    assert input_statistics(opened) == input_statistics(model)
    assert tuple(opened.pretrained_cfg["input_size"]) == (3, 32, 32)
    assert timm.data.resolve_data_config({}, model=opened)["crop_pct"] == 1.0
    before = {file.name: file.read_bytes() for file in (tmp_path / "kept").iterdir()}
    save(network, tmp_path / "again")
    assert {f.name: f.read_bytes() for f in (tmp_path / "again").iterdir()} == before


def test_the_best_network_is_the_best_on_validation_and_the_first_of_equals(
    classifier: str, tmp_path: Path
) -> None:
    for seed, accuracy in ((2, 60.0), (10, 70.0), (11, 70.0)):
        save(classifier, tmp_path / "arm/networks" / str(seed), accuracy=accuracy)
    best = best_network(tmp_path / "arm")
    assert best == tmp_path / "arm/networks/10"
    publish_network(best, tmp_path / "classifier")
    assert (tmp_path / "classifier" / WEIGHTS).read_bytes() == (best / WEIGHTS).read_bytes()
    assert best_network(tmp_path / "classifier") is None
    publish_network(None, tmp_path / "classifier")
    assert list((tmp_path / "classifier").iterdir()) == []
    with pytest.raises(TruelikeError, match=r"no trained network.*train\.keep"):
        open_trained(tmp_path / "classifier")


def test_a_folder_is_classified_as_the_pipeline_does_it(classifier: str, tmp_path: Path) -> None:
    model = save(classifier, tmp_path / "kept", resolution=48)
    images = coloured(5, 0).pixels
    (tmp_path / "pictures/deep").mkdir(parents=True)
    for number, pixels in enumerate(images):
        name = f"deep/{number}.png" if number % 2 else f"{number}.PNG"
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures/readme.txt").write_text("no image")
    table = predict_images(open_trained(tmp_path / "kept"), tmp_path / "pictures", DATA)
    assert table["path"].tolist() == ["0.PNG", "2.PNG", "4.PNG", "deep/1.png", "deep/3.png"]
    larger = np.stack([resized(pixels, 48) for pixels in images[[0, 2, 4, 1, 3]]])
    expected = predict(model, LabelledImages(larger, np.zeros(5)))
    assert table.columns.tolist() == ["path", "class", "p:red", "p:green", "p:blue"]
    np.testing.assert_allclose(table.iloc[:, 2:].to_numpy(), expected, atol=1e-5)
    assert table["class"].tolist() == [CLASSES[label] for label in expected.argmax(1)]
    with pytest.raises(TruelikeError, match="no images"):
        predict_images(open_trained(tmp_path / "kept"), tmp_path / "kept", DATA)


def test_images_are_scaled_once_and_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert resized(stripes, 64) is stripes
    small = resized(stripes, 16)
    assert small.shape == (16, 16, 3)
    assert 100 < small[:, 2:-2].min() <= small[:, 2:-2].max() < 155  # grey, not black or white


def test_onnx_says_what_torch_says_for_any_number_of_images(
    classifier: str, tmp_path: Path
) -> None:
    import onnxruntime

    model = save(classifier, tmp_path / "kept")
    assert export_onnx(open_trained(tmp_path / "kept"), tmp_path / "net.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    pixels = coloured(7, 3).pixels
    (found,) = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(found, predict(model, coloured(7, 3)), atol=1e-5)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["class_names"].split("\n") == CLASSES


def test_kept_networks_of_an_arm_are_listed_by_seed() -> None:
    accuracy = {3: 50.0, 1: 80.0, 2: 80.0}
    assert kept_seeds("best", accuracy) == [1]
    assert kept_seeds("all", accuracy) == [3, 1, 2]
    assert kept_seeds("none", accuracy) == []

"""Opening classifiers: timm's directory layout, names, and what is wrong with other things."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from truelike.errors import TruelikeError
from truelike.models.classifier import input_statistics, open_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of 6 classes in timm's layout."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=6)
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 6, "classifier": "fc"}
    config = {"architecture": "test_resnet", "num_classes": 6, "pretrained_cfg": settings | {"first_conv": "conv1.0"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pretrained_weights_are_loaded_and_the_last_layer_fits_the_classes(classifier: Path) -> None:
    torch.manual_seed(3)
    saved = timm.create_model("test_resnet", num_classes=6).state_dict()
    model = open_classifier(str(classifier), 4, pretrained=True)
    found = model.state_dict()
    assert found["fc.weight"].shape == (4, 96)
    assert all(torch.equal(found[name], saved[name]) for name in saved if not name.startswith("fc."))
    assert input_statistics(model) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_random_weights_depend_on_the_seed_alone(classifier: Path) -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(open_classifier(str(classifier), 4, pretrained=False).state_dict()["conv1.0.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_yaml_file_names_a_timm_network(tmp_path: Path) -> None:
    pointer = tmp_path / "net.yaml"
    pointer.write_text("timm: test_vit\n")
    model = open_classifier(str(pointer), 5, pretrained=False, resolution=32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    pointer.write_text("timm: resnett18\n")
    with pytest.raises(TruelikeError, match="timm has no network 'resnett18'"):
        open_classifier(str(pointer), 5, pretrained=False)


def test_wrong_directories_are_named(tmp_path: Path, classifier: Path) -> None:
    with pytest.raises(TruelikeError, match="nowhere"):
        open_classifier(str(tmp_path / "nowhere"), 3, pretrained=False)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(TruelikeError, match="names no 'architecture'"):
        open_classifier(str(tmp_path), 3, pretrained=False)
    (tmp_path / "config.json").write_bytes((classifier / "config.json").read_bytes())
    with pytest.raises(TruelikeError, match=r"model\.safetensors is missing"):
        open_classifier(str(tmp_path), 3, pretrained=True)
    (tmp_path / "config.json").write_text('{"architecture": "nonsense"}')
    with pytest.raises(TruelikeError, match="nonsense"):
        open_classifier(str(tmp_path), 3, pretrained=False)

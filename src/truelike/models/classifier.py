"""Opens a timm classifier from a directory, or from a YAML file that names one."""

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from truelike.config import read_yaml
from truelike.errors import TruelikeError
from truelike.models.source import resolve

WEIGHTS = "model.safetensors"


def open_classifier(path: str, num_classes: int, pretrained: bool, resolution: int | None = None) -> nn.Module:
    """Open a timm network with a last layer for `num_classes`.

    `path`: a directory in timm's layout (config.json, model.safetensors), or a YAML file ``{timm: NAME}`` or
    ``{hub: OWNER/NAME, revision: COMMIT}``. Weights are random, drawn from torch's global generator, unless
    `pretrained`; the last layer is random whenever its number of classes differs. `resolution` in pixels is given to
    networks of a fixed input size, such as vision transformers. Raises TruelikeError for a wrong or missing model.
    """
    name, fixed_size = _timm_name(path, pretrained)
    size: dict[str, Any] = {"img_size": resolution} if fixed_size and resolution else {}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **size)
    except RuntimeError as error:  # weights that do not fit, or none at all
        raise TruelikeError(f"models.classifier {path}: {error}") from None


def input_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], that the network's inputs are normalised with."""
    settings = getattr(model, "pretrained_cfg", None) or {}
    mean, std = settings.get("mean") or (0.5,) * 3, settings.get("std") or (0.5,) * 3
    return tuple(mean), tuple(std)


def _timm_name(path: str, pretrained: bool) -> tuple[str, bool]:
    """The name timm opens the model by, and whether its input size is fixed when it is made."""
    pointer = read_yaml(path) if Path(path).is_file() else None
    if isinstance(pointer, dict) and "timm" in pointer:
        name = str(pointer["timm"])
        return name, _has_fixed_size(path, name)
    folder = resolve(path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not config.get("architecture"):
        raise TruelikeError(f"models.classifier {path}: not a timm model: config.json names no 'architecture'")
    if pretrained and not (folder / WEIGHTS).is_file():
        raise TruelikeError(f"models.classifier {path}: train.pretrained is true but {WEIGHTS} is missing")
    fixed_size = _has_fixed_size(path, config["architecture"])
    return f"local-dir:{folder}", config.get("pretrained_cfg", {}).get("fixed_input_size", fixed_size)


def _has_fixed_size(path: str, architecture: str) -> bool:
    if not timm.is_model(architecture):
        raise TruelikeError(
            f"models.classifier {path}: timm has no network {architecture!r}; timm.list_models() shows their names"
        )
    return bool(timm.get_pretrained_cfg_value(architecture, "fixed_input_size"))

"""Trained networks as directories that ``timm.create_model("local-dir:...", pretrained=True)``
opens.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf
from torch import nn

from truelike.paths import CONFIG, NETWORKS, WEIGHTS
from truelike.runtime.errors import TruelikeError
from truelike.training.networks import input_statistics


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights under timm's names, the same bytes for the same weights."""
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)


def write_config(
    model: nn.Module,
    resolution: int,
    class_names: Sequence[str],
    summary: dict[str, Any],
    path: Path,
) -> None:
    """Write the config that, beside its weights, lets timm open a trained network.

    It holds the class names as `label_names`, the normalisation and `resolution` of the inputs in
    `pretrained_cfg`, and the `summary` of its training.
    """
    mean, std = input_statistics(model)
    inputs = {
        "input_size": (3, resolution, resolution),
        "mean": mean,
        "std": std,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
    }
    described = {"label_names": list(class_names), "training": summary}
    save_config_for_hf(model, path, model_config=described, data_config=inputs)
    config = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Classifier:
    """A trained network: the model in evaluation mode, its class names, and the side of its inputs
    in pixels.
    """

    model: nn.Module
    class_names: list[str]
    resolution: int


def open_trained(folder: Path) -> Classifier:
    """Open a network that `train` kept; raises TruelikeError for any other directory."""
    file = folder / CONFIG
    if not file.is_file() or not (folder / WEIGHTS).is_file():
        raise TruelikeError(
            f"{folder}: no trained network, {CONFIG} or {WEIGHTS} is missing; run `dvc repro` "
            "with train.keep: best, or `dvc pull`"
        )
    config = json.loads(file.read_text(encoding="utf-8"))
    if "label_names" not in config:
        raise TruelikeError(f"{file}: names no label_names, so its outputs have no class names")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return Classifier(model, config["label_names"], config["pretrained_cfg"]["input_size"][-1])


def best_network(arm: Path) -> Path | None:
    """The kept network of an arm's folder that was best on validation, None where none was kept."""
    folders = sorted((arm / NETWORKS).glob("*"), key=lambda folder: int(folder.name))
    return max(folders, key=_validation_accuracy, default=None)


def _validation_accuracy(folder: Path) -> float:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config["training"]["validation_accuracy"]


def publish_network(network: Path | None, out: Path) -> None:
    """Make the directory `out` a copy of a network, or empty."""
    shutil.rmtree(out, ignore_errors=True)
    if network is None:
        out.mkdir(parents=True)
    else:
        shutil.copytree(network, out)

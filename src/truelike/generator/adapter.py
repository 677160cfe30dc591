"""A learned adapter: ``adapter.json``, and LoRA weights as stock diffusers reads them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from truelike.generator.families import denoiser_of, family_of
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import fingerprint, write_once
from truelike.runtime.settings import Section

ADAPTER_FILE, LORA_FILE = "adapter.json", "pytorch_lora_weights.safetensors"
WHOLE_SET = "default"  # peft's own name of an adapter


class Adapter(Section):
    """The content of ``adapter.json``: a fingerprint of the LoRA weights and of the style they were
    trained with.

    `labels` are the classes that have an adapter each, in a folder named after the label, where not
    one serves all.
    """

    enabled: bool
    labels: tuple[int, ...] | None = None
    rank: int = 0
    alpha: int = 0
    style: str = ""
    fingerprint: str = ""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class LoraShape:
    """The rank and alpha of a LoRA, and the names of the modules that have one."""

    rank: int
    alpha: int
    modules: list[str]


def class_adapter(label: int) -> str:
    """The name that peft knows the adapter of a class by."""
    return f"class-{label}"


def read_adapter(folder: Path | None) -> Adapter:
    """Read ``adapter.json``; no folder is no adapter."""
    if folder is None:
        return Adapter(enabled=False)
    return Adapter.model_validate_json((folder / ADAPTER_FILE).read_text())


def write_adapter(folder: Path, pipeline: Any, shape: LoraShape, style: str) -> list[Path]:
    """Write the denoiser's LoRA, or those of the classes in a folder each, and ``adapter.json``
    with the fingerprint of the `style`; return the finished files.
    """
    names = list(denoiser_of(pipeline).peft_config)
    labels = None if names == [WHOLE_SET] else tuple(int(name.rpartition("-")[2]) for name in names)
    folders = [folder] if labels is None else [folder / str(label) for label in labels]
    for name, own_folder in zip(names, folders, strict=True):
        write_lora(own_folder / LORA_FILE, pipeline, shape, name)
    weights = [own_folder / LORA_FILE for own_folder in folders]
    adapter = Adapter(
        enabled=True,
        labels=labels,
        rank=shape.rank,
        alpha=shape.alpha,
        style=style,
        fingerprint=fingerprint(None, *weights),
    )
    write_once(folder / ADAPTER_FILE, adapter.save)
    return [folder / ADAPTER_FILE, *weights]


def write_no_adapter(folder: Path) -> list[Path]:
    """Write the ``adapter.json`` that says there is none; return the finished files."""
    write_once(folder / ADAPTER_FILE, Adapter(enabled=False).save)
    return [folder / ADAPTER_FILE]


def write_lora(file: Path, pipeline: Any, shape: LoraShape, name: str) -> None:
    """Write one of the denoiser's LoRAs as ``load_lora_weights`` of the stock pipeline reads it."""
    prefix = family_of(pipeline).denoiser
    layers = get_peft_model_state_dict(denoiser_of(pipeline), adapter_name=name)
    if prefix == "unet":  # diffusers' older names, which lack the projections of joint attention
        layers = convert_state_dict_to_diffusers(layers)
    layers = {name: value.detach().cpu().contiguous() for name, value in sorted(layers.items())}
    config = {"r": shape.rank, "lora_alpha": shape.alpha, "target_modules": shape.modules}
    prefixed = {f"{prefix}.{name}": value for name, value in config.items()}
    metadata = {"lora_adapter_metadata": json.dumps(prefixed)}

    def save(path: Path) -> None:
        pipeline.save_lora_weights(
            path.parent,
            weight_name=path.name,
            # diffusers' own writes two entries of metadata, which safetensors puts in random order
            save_function=lambda weights, name: save_file(weights, name, metadata=metadata),
            **{f"{prefix}_lora_layers": layers},
        )

    write_once(file, save)


def check_lora(folder: Path, pipeline: Any) -> None:
    """Raise TruelikeError if the layers of a LoRA's file are not exactly layers of the denoiser."""
    model, prefix = denoiser_of(pipeline), family_of(pipeline).denoiser
    shapes = {f"{prefix}.{name}": tuple(weight.shape) for name, weight in model.named_parameters()}
    for name, weight in load_file(folder / LORA_FILE).items():
        layer, _, end = name.removesuffix(".weight").rpartition(".lora")
        shape = shapes.get(f"{layer}.weight")
        side = 0 if end in (".up", "_B") else 1
        if shape is None or weight.shape[side] != shape[side]:
            raise TruelikeError(
                f"{folder / LORA_FILE}: {name} {tuple(weight.shape)} fits no layer of the "
                f"generator's {prefix}; run the stage adapt again with this generator"
            )

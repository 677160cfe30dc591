"""Adaptation by distribution matching (RF): LoRA on the denoiser's attention, L = L_diff + lambda L_dm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from truelike.config import Adapt
from truelike.data.imageset import ImageSet
from truelike.diffusion.conditioning import encode_prompts, guide
from truelike.diffusion.loop import LOG_FILE, optimize
from truelike.diffusion.objective import (
    diffusion_loss,
    draw_noised,
    matching_loss,
    min_snr_weights,
    noise_schedule,
)
from truelike.models.families import Conditioning, denoiser_of, family_of
from truelike.models.generator import ADAPTER_FILE, LORA_FILE, Adapter, encode_images
from truelike.scratch import fingerprint, write_once


def lora_modules(pipeline: Any, settings: Adapt) -> list[str]:
    """The names of the modules that get a LoRA."""
    attention = family_of(pipeline).attention
    return [module for target in settings.targets for module in attention[target]]


def add_lora(pipeline: Any, settings: Adapt) -> dict[str, Tensor]:
    """Add a LoRA to the attention projections and return its parameters by name; its output is zero at first."""
    torch.manual_seed(settings.seed)
    model, modules = denoiser_of(pipeline), lora_modules(pipeline, settings)
    model.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.alpha, init_lora_weights="gaussian", target_modules=modules)
    )
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for value in parameters.values():
        value.data = value.data.float()
    return parameters


@torch.no_grad()
def training_states(pipeline: Any, prompts: Sequence[str], vectors: np.ndarray | None) -> Conditioning:
    """The conditioning of every image's prompt under visual guidance, each tensor (N, ...)."""
    states = encode_prompts(pipeline, prompts)
    return states if vectors is None else guide(states, torch.from_numpy(vectors))


def learn_adapter(
    pipeline: Any,
    real: ImageSet,
    prompts: Sequence[str],
    vectors: np.ndarray | None,
    settings: Adapt,
    dtype: str,
    folder: Path,
) -> None:
    """Train a LoRA on the real images with a prompt and (optional) guidance vector each; the denoiser keeps it.

    `vectors` float32 (N, W). A dropped caption is the empty prompt, without visual guidance. Checkpoints and
    ``log.csv`` go to `folder`.
    """
    latents = encode_images(pipeline, real)
    states = training_states(pipeline, prompts, vectors)
    empty = training_states(pipeline, [""], None)
    labels = torch.tensor(real.labels)
    parameters = add_lora(pipeline, settings)
    denoiser_of(pipeline).train()
    schedule = noise_schedule(pipeline.scheduler, pipeline.device)
    dm = settings.dm

    def losses_of(generator: torch.Generator, step: int) -> dict[str, Tensor]:
        chosen = torch.randperm(len(latents), generator=generator)[: settings.batch_size]
        noised = draw_noised(schedule, latents[chosen], dm.timesteps, generator)
        dropped = torch.rand(len(chosen), generator=generator) < settings.caption_dropout
        context = {name: drop(value[chosen], empty[name], dropped) for name, value in states.items()}
        predicted = family_of(pipeline).denoise(pipeline, noised.latents, noised.timesteps, context)
        weights = min_snr_weights(noised.snr, settings.min_snr_gamma, schedule.prediction)
        groups = labels[chosen].to(weights.device) if dm.groups == "class" else None
        diff = diffusion_loss(predicted, noised.target, weights)
        matching = matching_loss(predicted, noised.target, weights, dm.reduction, groups, dm.kernel)
        return {"loss": diff + dm.weight * matching, "diff": diff, "dm": matching}

    optimize(
        parameters,
        losses_of,
        folder,
        name="adapt",
        dtype=dtype,
        steps=settings.steps,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        seed=settings.seed,
        checkpoint_every=settings.checkpoint_every,
        ema_decay=settings.ema_decay,
    )
    denoiser_of(pipeline).eval()


def drop(values: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Replace the rows of `values` (B, ...) that are `dropped` (B,) by `empty` (1, ...)."""
    return torch.where(dropped.to(values.device).view(-1, *[1] * (values.ndim - 1)), empty, values)


def write_adapter(folder: Path, pipeline: Any, settings: Adapt, style: str) -> list[Path]:
    """Write the denoiser's LoRA as ``load_lora_weights`` reads it, and ``adapter.json``; return the files."""
    prefix = family_of(pipeline).denoiser
    layers = get_peft_model_state_dict(denoiser_of(pipeline))
    if prefix == "unet":  # diffusers' older names, which lack the projections of joint attention
        layers = convert_state_dict_to_diffusers(layers)
    layers = {name: value.detach().cpu().contiguous() for name, value in sorted(layers.items())}

    config = {"r": settings.rank, "lora_alpha": settings.alpha, "target_modules": lora_modules(pipeline, settings)}
    metadata = {"lora_adapter_metadata": json.dumps({f"{prefix}.{name}": value for name, value in config.items()})}

    def save(path: Path) -> None:
        pipeline.save_lora_weights(
            path.parent,
            weight_name=path.name,
            # diffusers' own writes two entries of metadata, which safetensors puts in random order
            save_function=lambda weights, name: save_file(weights, name, metadata=metadata),
            **{f"{prefix}_lora_layers": layers},
        )

    write_once(folder / LORA_FILE, save)
    mark = fingerprint(None, folder / LORA_FILE)
    adapter = Adapter(enabled=True, rank=settings.rank, alpha=settings.alpha, style=style, fingerprint=mark)
    return [_write_json(folder, adapter), folder / LORA_FILE, folder / LOG_FILE]


def write_no_adapter(folder: Path) -> list[Path]:
    """Write the ``adapter.json`` that says there is none; return the finished files."""
    return [_write_json(folder, Adapter(enabled=False))]


def _write_json(folder: Path, adapter: Adapter) -> Path:
    write_once(folder / ADAPTER_FILE, adapter.save)
    return folder / ADAPTER_FILE

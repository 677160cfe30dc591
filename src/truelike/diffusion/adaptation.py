"""Adaptation by distribution matching (RF): LoRA on the UNet's attention, L = L_diff + lambda L_dm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
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
    add_noise,
    diffusion_loss,
    matching_loss,
    min_snr_weights,
    sample_timesteps,
    snr,
    target,
)
from truelike.models.generator import ADAPTER_FILE, LORA_FILE, Adapter, encode_images
from truelike.scratch import fingerprint, write_once

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def add_lora(unet: Any, rank: int, alpha: int, seed: int) -> dict[str, Tensor]:
    """Add a LoRA to all attention projections and return its parameters by name; its output is zero at first."""
    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=ATTENTION))
    parameters = {name: value for name, value in unet.named_parameters() if value.requires_grad}
    for value in parameters.values():
        value.data = value.data.float()
    return parameters


@torch.no_grad()
def training_states(pipeline: Any, prompts: Sequence[str], vectors: np.ndarray | None) -> Tensor:
    """The states of every image's prompt under visual guidance, (N, L, W)."""
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
    """Train a LoRA on the real images with a prompt and (optional) guidance vector each; the UNet keeps it attached.

    `vectors` float32 (N, W). A dropped caption is the empty prompt, without visual guidance. Checkpoints and
    ``log.csv`` go to `folder`.
    """
    latents = encode_images(pipeline, real)
    states = training_states(pipeline, prompts, vectors)
    empty = training_states(pipeline, [""], None)[0]
    labels = torch.tensor(real.labels)
    parameters = add_lora(pipeline.unet, settings.rank, settings.alpha, settings.seed)
    pipeline.unet.train()
    alphas = pipeline.scheduler.alphas_cumprod.to(pipeline.device)
    kind = pipeline.scheduler.config.prediction_type
    dm = settings.dm

    def losses_of(generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randperm(len(latents), generator=generator)[: settings.batch_size]
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        timesteps = sample_timesteps(len(clean), len(alphas), dm.timesteps, generator).to(clean.device)
        dropped = torch.rand(len(clean), generator=generator) < settings.caption_dropout
        context = torch.where(dropped[:, None, None].to(clean.device), empty, states[chosen])
        noisy = add_noise(clean, noise, alphas, timesteps)
        predicted = pipeline.unet(noisy, timesteps, encoder_hidden_states=context).sample
        wanted = target(clean, noise, alphas, timesteps, kind)
        weights = min_snr_weights(snr(alphas, timesteps), settings.min_snr_gamma, kind)
        groups = labels[chosen].to(clean.device) if dm.groups == "class" else None
        diff = diffusion_loss(predicted, wanted, weights)
        matching = matching_loss(predicted, wanted, weights, dm.reduction, groups)
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
    )
    pipeline.unet.eval()


def write_adapter(folder: Path, unet: Any, settings: Adapt, style: str) -> list[Path]:
    """Write the LoRA attached to `unet` as ``load_lora_weights`` reads it, and ``adapter.json``; return the files."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    layers = {name: value.detach().cpu().contiguous() for name, value in sorted(layers.items())}

    config = {f"unet.{name}": value for name, value in (("r", settings.rank), ("lora_alpha", settings.alpha))}
    metadata = {"lora_adapter_metadata": json.dumps(config | {"unet.target_modules": ATTENTION})}

    def save(path: Path) -> None:
        StableDiffusionPipeline.save_lora_weights(
            path.parent,
            unet_lora_layers=layers,
            weight_name=path.name,
            # diffusers' own writes two entries of metadata, which safetensors puts in random order
            save_function=lambda weights, name: save_file(weights, name, metadata=metadata),
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

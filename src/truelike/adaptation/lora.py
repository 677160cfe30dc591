"""Adaptation by distribution matching (RF): LoRA on the denoiser's attention, L = L_diff + lambda
L_dm.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from truelike.adaptation.loop import LOG_FILE, optimize
from truelike.adaptation.objective import (
    diffusion_loss,
    draw_noised,
    matching_loss,
    min_snr_weights,
    noise_schedule,
)
from truelike.adaptation.settings import Adapt
from truelike.generator.conditioning import encode_prompts, guidance_vectors, guide
from truelike.generator.families import Conditioning, denoiser_of, family_of
from truelike.generator.pipeline import (
    ADAPTER_FILE,
    LORA_FILE,
    Adapter,
    add_style,
    class_adapter,
    encode_images,
    open_generator,
)
from truelike.generator.prompts import training_prompts
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_captions, read_features
from truelike.runtime.hub import Model
from truelike.runtime.processes import all_rows, joined, own_rows
from truelike.runtime.scratch import (
    fingerprint,
    is_first,
    publish,
    scratch,
    scratch_key,
    write_once,
)

WHOLE_SET = "default"  # peft's own name of an adapter


def lora_modules(pipeline: Any, settings: Adapt) -> list[str]:
    """The names of the modules that get a LoRA."""
    attention = family_of(pipeline).attention
    return [module for target in settings.targets for module in attention[target]]


def add_lora(pipeline: Any, settings: Adapt, name: str = WHOLE_SET) -> dict[str, Tensor]:
    """Add a LoRA to the attention projections and return its parameters by name; its output is zero
    at first.

    It alone takes effect, beside whatever others the denoiser has.
    """
    torch.manual_seed(settings.seed)
    model, modules = denoiser_of(pipeline), lora_modules(pipeline, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        init_lora_weights="gaussian",
        target_modules=modules,
    )
    model.add_adapter(config, adapter_name=name)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for value in parameters.values():
        value.data = value.data.float()
    return parameters


@torch.no_grad()
def training_states(
    pipeline: Any,
    prompts: Sequence[str],
    vectors: np.ndarray | None,
    cache: dict[str, Conditioning] | None = None,
) -> Conditioning:
    """The conditioning of images' prompts under visual guidance, each tensor (N, ...), float32 also
    in autocast.
    """
    with torch.autocast(pipeline.device.type, enabled=False):
        states = encode_prompts(pipeline, prompts, cache)
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
    """Train a LoRA on the real images with a prompt and (optional) guidance vector each; the
    denoiser keeps it.

    `vectors` float32 (N, W). A dropped caption is the empty prompt, without visual guidance. In
    scope class every class has a LoRA of its own, learned from its images alone in an equal part of
    the steps, at least one. Checkpoints and ``log.csv`` go to `folder`, or to a folder in it named
    after the label. Several processes draw the same batches, and the losses are those of the whole
    batch: their number changes sums by rounding only.
    """
    latents = encode_images(pipeline, real)
    encoded: dict[str, Conditioning] = {}
    empty = training_states(pipeline, [""], None)
    labels = torch.tensor(real.labels)
    present = labels.unique().tolist()
    denoiser_of(pipeline).train()
    schedule = noise_schedule(pipeline.scheduler, pipeline.device)
    dm = settings.dm

    def losses_of(images: Tensor, generator: torch.Generator, step: int) -> dict[str, Tensor]:
        chosen = images[torch.randperm(len(images), generator=generator)[: settings.batch_size]]
        noised = draw_noised(schedule, latents[chosen].to(pipeline.device), dm.timesteps, generator)
        dropped = torch.rand(len(chosen), generator=generator) < settings.caption_dropout
        mine = own_rows(len(chosen))
        rows = chosen[mine].tolist()
        guides = None if vectors is None else vectors[rows]
        states = training_states(pipeline, [prompts[row] for row in rows], guides, encoded)
        context = {name: drop(value, empty[name], dropped[mine]) for name, value in states.items()}
        own = family_of(pipeline).denoise(
            pipeline, noised.latents[mine], noised.timesteps[mine], context
        )
        predicted = all_rows(own, len(chosen))
        weights = min_snr_weights(noised.snr, settings.min_snr_gamma, schedule.prediction)
        groups = labels[chosen].to(weights.device) if dm.groups == "class" else None
        diff = diffusion_loss(predicted, noised.target, weights)
        matching = matching_loss(predicted, noised.target, weights, dm.reduction, groups, dm.kernel)
        return {"loss": diff + dm.weight * matching, "diff": diff, "dm": matching}

    def learn(name: str, images: Tensor, steps: int, own_folder: Path) -> None:
        optimize(
            add_lora(pipeline, settings, name),
            partial(losses_of, images),
            own_folder,
            name="adapt" if name == WHOLE_SET else f"adapt {name}",
            dtype=dtype,
            steps=steps,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            clip=settings.clip,
            seed=settings.seed,
            checkpoint_every=settings.checkpoint_every,
            ema_decay=settings.ema_decay,
        )

    if settings.scope == "set":
        learn(WHOLE_SET, torch.arange(len(labels)), settings.steps, folder)
    else:
        for label in present:
            own_folder = folder / str(label)
            own_folder.mkdir(exist_ok=True)
            images = (labels == label).nonzero()[:, 0]
            learn(class_adapter(label), images, max(1, settings.steps // len(present)), own_folder)
    denoiser_of(pipeline).eval()


def drop(values: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Replace the rows of `values` (B, ...) that are `dropped` (B,) by `empty` (1, ...)."""
    return torch.where(dropped.to(values.device).view(-1, *[1] * (values.ndim - 1)), empty, values)


def write_adapter(folder: Path, pipeline: Any, settings: Adapt, style: str) -> list[Path]:
    """Write the LoRA, or those of the classes in a folder each, and ``adapter.json``; return the
    files.
    """
    names = list(denoiser_of(pipeline).peft_config)
    labels = None if names == [WHOLE_SET] else tuple(int(name.rpartition("-")[2]) for name in names)
    folders = [folder] if labels is None else [folder / str(label) for label in labels]
    for name, own_folder in zip(names, folders, strict=True):
        write_lora(own_folder, pipeline, settings, name)
    weights = [own_folder / LORA_FILE for own_folder in folders]
    mark = fingerprint(None, *weights)
    adapter = Adapter(
        enabled=True,
        labels=labels,
        rank=settings.rank,
        alpha=settings.alpha,
        style=style,
        fingerprint=mark,
    )
    return [
        _write_json(folder, adapter),
        *weights,
        *(own_folder / LOG_FILE for own_folder in folders),
    ]


def write_lora(folder: Path, pipeline: Any, settings: Adapt, name: str) -> None:
    """Write one of the denoiser's LoRAs as ``load_lora_weights`` of the stock pipeline reads it."""
    prefix = family_of(pipeline).denoiser
    layers = get_peft_model_state_dict(denoiser_of(pipeline), adapter_name=name)
    if prefix == "unet":  # diffusers' older names, which lack the projections of joint attention
        layers = convert_state_dict_to_diffusers(layers)
    layers = {name: value.detach().cpu().contiguous() for name, value in sorted(layers.items())}

    config = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": lora_modules(pipeline, settings),
    }
    metadata = {
        "lora_adapter_metadata": json.dumps(
            {f"{prefix}.{name}": value for name, value in config.items()}
        )
    }

    def save(path: Path) -> None:
        pipeline.save_lora_weights(
            path.parent,
            weight_name=path.name,
            # diffusers' own writes two entries of metadata, which safetensors puts in random order
            save_function=lambda weights, name: save_file(weights, name, metadata=metadata),
            **{f"{prefix}_lora_layers": layers},
        )

    write_once(folder / LORA_FILE, save)


def write_no_adapter(folder: Path) -> list[Path]:
    """Write the ``adapter.json`` that says there is none; return the finished files."""
    return [_write_json(folder, Adapter(enabled=False))]


def _write_json(folder: Path, adapter: Adapter) -> Path:
    write_once(folder / ADAPTER_FILE, adapter.save)
    return folder / ADAPTER_FILE


def adapt(
    settings: Adapt,
    *,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
    generator: Model,
    real: Path,
    captions: Path,
    features: Path,
    style: Path,
    out: Path,
) -> None:
    """Learn an adapter of the images in `real` with their captions, features and style, or none;
    write it to `out`.
    """
    used = [
        settings.model_dump(),
        prompts.model_dump(),
        visual_guidance.model_dump(),
        generator.dtype,
    ]
    with (
        joined(),
        scratch(
            "adapt", scratch_key(__file__, used, generator.path, real, captions, features, style)
        ) as folder,
    ):
        if settings.enabled:
            images = ImageSet(real)
            pipeline = open_generator(replace(generator, dtype="float32"))
            learned = add_style(pipeline, style)
            read = read_features(features, images.keys)
            vectors = guidance_vectors(pipeline, read, images.labels, visual_guidance)
            names = images.index["class_name"].tolist()
            texts = read_captions(captions, images.keys)
            styles = [learned.text(name) for name in names]
            written = training_prompts(
                pipeline.tokenizer, prompts, images.keys, names, texts, styles
            )
            learn_adapter(pipeline, images, written, vectors, settings, generator.dtype, folder)
        if not is_first():
            return
        if settings.enabled:
            files = write_adapter(folder, pipeline, settings, learned.fingerprint)
        else:
            files = write_no_adapter(folder)
        for file in files:
            publish([file], out / file.parent.relative_to(folder))

"""Adaptation by distribution matching (RF): LoRA on the denoiser's attention, L = L_diff + lambda
L_dm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor

from truelike.adaptation.loop import LOG_FILE, LoopSettings, optimize
from truelike.adaptation.objective import (
    NoiseSchedule,
    diffusion_loss,
    draw_noised,
    matching_loss,
    min_snr_weights,
    noise_schedule,
)
from truelike.adaptation.settings import Adapt
from truelike.generator.adapter import (
    WHOLE_SET,
    LoraShape,
    class_adapter,
    write_adapter,
    write_no_adapter,
)
from truelike.generator.families import Conditioning
from truelike.generator.generator import Generator
from truelike.generator.guidance import guidance_vectors, guide
from truelike.generator.prompts import training_prompts
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.generator.style import Style
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_captions, read_features
from truelike.runtime.hub import Model
from truelike.runtime.processes import all_rows, joined, own_rows
from truelike.runtime.scratch import is_first, publish, scratch, scratch_key


def lora_shape(generator: Generator, settings: Adapt) -> LoraShape:
    """The LoRA that `settings` describe, on the modules of the generator's attention."""
    attention = generator.family.attention
    modules = [module for target in settings.targets for module in attention[target]]
    return LoraShape(settings.rank, settings.alpha, modules)


def add_lora(generator: Generator, settings: Adapt, name: str = WHOLE_SET) -> dict[str, Tensor]:
    """Add a LoRA to the attention projections and return its parameters by name; its output is zero
    at first.

    It alone takes effect, beside whatever others the denoiser has.
    """
    torch.manual_seed(settings.seed)
    model, shape = generator.denoiser, lora_shape(generator, settings)
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        init_lora_weights="gaussian",
        target_modules=shape.modules,
    )
    model.add_adapter(config, adapter_name=name)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for value in parameters.values():
        value.data = value.data.float()
    return parameters


@dataclass(frozen=True)
class TrainingImages:
    """The images that an adapter is learned from: latents (N, C, h, w), labels (N,), prompts, and
    (optional) guidance vectors float32 (N, W).
    """

    latents: Tensor
    labels: Tensor
    prompts: Sequence[str]
    vectors: np.ndarray | None


@torch.no_grad()
def training_states(
    generator: Generator, prompts: Sequence[str], vectors: np.ndarray | None
) -> Conditioning:
    """The conditioning of images' prompts under visual guidance, each tensor (N, ...), float32 also
    in autocast.
    """
    with torch.autocast(generator.device.type, enabled=False):
        states = generator.encode_prompts(prompts)
        return states if vectors is None else guide(states, torch.from_numpy(vectors))


@dataclass(frozen=True)
class AdapterObjective:
    """The loss of adaptation, L_diff + lambda L_dm; `empty` is the conditioning of a dropped
    caption.
    """

    generator: Generator
    images: TrainingImages
    empty: Conditioning
    schedule: NoiseSchedule
    settings: Adapt

    def losses(self, members: Tensor, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The losses of a batch drawn from `members`, positions of images.

        Several processes draw the same batch, and the losses are those of the whole batch: their
        number changes sums by rounding only.
        """
        settings, dm = self.settings, self.settings.dm
        chosen = members[torch.randperm(len(members), generator=rng)[: settings.batch_size]]
        clean = self.images.latents[chosen].to(self.generator.device)
        noised = draw_noised(self.schedule, clean, dm.timesteps, rng)
        dropped = torch.rand(len(chosen), generator=rng) < settings.caption_dropout
        mine = own_rows(len(chosen))
        states = self._states(chosen[mine], dropped[mine])
        own = self.generator.denoise(noised.latents[mine], noised.timesteps[mine], states)
        predicted = all_rows(own, len(chosen))
        weights = min_snr_weights(noised.snr, settings.min_snr_gamma, self.schedule.prediction)
        labels = self.images.labels[chosen].to(weights.device) if dm.groups == "class" else None
        diff = diffusion_loss(predicted, noised.target, weights)
        matching = matching_loss(predicted, noised.target, weights, dm.reduction, labels, dm.kernel)
        return {"loss": diff + dm.weight * matching, "diff": diff, "dm": matching}

    def _states(self, positions: Tensor, dropped: Tensor) -> Conditioning:
        rows = positions.tolist()
        vectors = None if self.images.vectors is None else self.images.vectors[rows]
        prompts = [self.images.prompts[row] for row in rows]
        states = training_states(self.generator, prompts, vectors)
        return {name: drop(value, self.empty[name], dropped) for name, value in states.items()}


def drop(values: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Replace the rows of `values` (B, ...) that are `dropped` (B,) by `empty` (1, ...)."""
    return torch.where(dropped.to(values.device).view(-1, *[1] * (values.ndim - 1)), empty, values)


def learn_adapter(
    generator: Generator, images: TrainingImages, settings: Adapt, dtype: str, folder: Path
) -> None:
    """Train a LoRA on the real images; the denoiser keeps it.

    A dropped caption is the empty prompt, without visual guidance. In scope class every class has a
    LoRA of its own, learned from its images alone in an equal part of the steps, at least one.
    Checkpoints and ``log.csv`` go to `folder`, or to a folder in it named after the label.
    """
    empty = training_states(generator, [""], None)
    schedule = noise_schedule(generator.scheduler, generator.device)
    objective = AdapterObjective(generator, images, empty, schedule, settings)
    loop = LoopSettings(
        name="adapt",
        dtype=dtype,
        steps=settings.steps,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        checkpoint_every=settings.checkpoint_every,
        clip=settings.clip,
        ema_decay=settings.ema_decay,
    )
    generator.denoiser.train()
    if settings.scope == "set":
        losses = partial(objective.losses, torch.arange(len(images.labels)))
        optimize(add_lora(generator, settings), losses, folder, loop)
    else:
        present = images.labels.unique().tolist()
        steps = max(1, settings.steps // len(present))
        for label in present:
            name, own_folder = class_adapter(label), folder / str(label)
            own_folder.mkdir(exist_ok=True)
            losses = partial(objective.losses, (images.labels == label).nonzero()[:, 0])
            own = replace(loop, name=f"adapt {name}", steps=steps)
            optimize(add_lora(generator, settings, name), losses, own_folder, own)
    generator.denoiser.eval()


@dataclass(frozen=True)
class AdaptInputs:
    """What an adapter is learned from: an image set, tables of captions and features, and a
    style.
    """

    real: Path
    captions: Path
    features: Path
    style: Path


def adapter_key(
    settings: Adapt,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
    generator: Model,
    inputs: AdaptInputs,
) -> str:
    """Changes with everything that decides what an adapter learns."""
    sections = [section.model_dump() for section in (settings, prompts, visual_guidance)]
    files = [inputs.real, inputs.captions, inputs.features, inputs.style]
    return scratch_key(__file__, [*sections, generator.dtype], generator.path, *files)


def adapt(
    settings: Adapt,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
    generator: Model,
    inputs: AdaptInputs,
    out: Path,
) -> None:
    """Learn an adapter of real images with their captions, features and style, or none; write it to
    `out`.
    """
    key = adapter_key(settings, prompts, visual_guidance, generator, inputs)
    with joined(), scratch("adapt", key) as folder:
        if not settings.enabled:
            if is_first():
                publish(write_no_adapter(folder), out)
            return
        opened = Generator.open(replace(generator, dtype="float32"))
        style = opened.add_style(inputs.style)
        images = read_images(opened, inputs, style, prompts, visual_guidance)
        learn_adapter(opened, images, settings, generator.dtype, folder)
        if not is_first():
            return
        shape = lora_shape(opened, settings)
        files = write_adapter(folder, opened.pipeline, shape, style.fingerprint)
        logs = [file.with_name(LOG_FILE) for file in files[1:]]
        for file in [*files, *logs]:
            publish([file], out / file.parent.relative_to(folder))


def read_images(
    generator: Generator,
    inputs: AdaptInputs,
    style: Style,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
) -> TrainingImages:
    """The real images' latents, labels, prompts and guidance vectors."""
    real = ImageSet(inputs.real)
    features = read_features(inputs.features, real.keys)
    vectors = guidance_vectors(generator, features, real.labels, visual_guidance)
    names = real.index["class_name"].tolist()
    captions = read_captions(inputs.captions, real.keys)
    styles = [style.text(name) for name in names]
    texts = training_prompts(generator.tokenizer, prompts, real.keys, names, captions, styles)
    return TrainingImages(generator.encode_images(real), torch.tensor(real.labels), texts, vectors)

"""Adaptation by distribution matching (RF): LoRA on the denoiser's attention, L = L_diff + lambda
L_dm.
"""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from truelike.adaptation.heldout import DRAWS, split_classes
from truelike.adaptation.loop import LOG_FILE, LoopSettings, optimize
from truelike.adaptation.objective import (
    Noised,
    NoiseSchedule,
    diffusion_loss,
    draw_noised,
    matching_loss,
    min_snr_weights,
    noise_schedule,
)
from truelike.adaptation.previews import FOLDER as PREVIEW_FOLDER
from truelike.adaptation.previews import Previews
from truelike.adaptation.settings import Adapt
from truelike.generator.adapter import (
    WHOLE_SET,
    LoraShape,
    class_adapter,
    write_adapter,
    write_no_adapter,
)
from truelike.generator.family import Conditioning
from truelike.generator.generator import Generator
from truelike.generator.guidance import guidance_vectors, guide
from truelike.generator.prompts import TRAINING_PIECES, training_prompts
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.generator.states import PromptStates, map_states
from truelike.generator.style import Style
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_captions, read_features
from truelike.runtime.devices import training_dtype
from truelike.runtime.hub import Model
from truelike.runtime.processes import all_rows, joined, own_rows
from truelike.runtime.scratch import is_first, publish, scratch, scratch_key

PREVIEWED = 4  # classes


def lora_shape(generator: Generator, settings: Adapt) -> LoraShape:
    """The LoRA that `settings` describe, on the modules of the generator's attention."""
    attention = generator.family.attention
    named = dict.fromkeys(module for target in settings.targets for module in attention[target])
    all_names = [name for name, _ in generator.denoiser.named_modules()]
    modules: list[str] = []
    for name in named:
        modules += fnmatch.filter(all_names, name) if "*" in name else [name]
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
    """The images that an adapter is learned from: the set, latents (N, C, h, w), prompts, the
    states of these and of the empty prompt, and (optional) guidance vectors float32 (N, W).
    """

    real: ImageSet
    latents: Tensor
    prompts: Sequence[str]
    states: PromptStates
    vectors: np.ndarray | None = None

    def conditioning(self, positions: Tensor, device: torch.device) -> Conditioning:
        """The conditioning of images under visual guidance, each tensor (B, ...)."""
        rows = positions.tolist()
        states = self.states.of([self.prompts[row] for row in rows])
        states = {name: value.to(device) for name, value in states.items()}
        return (
            states if self.vectors is None else guide(states, torch.from_numpy(self.vectors[rows]))
        )


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
        states = self.images.conditioning(chosen[mine], self.generator.device)
        states = {
            name: drop(value, self.empty[name], dropped[mine]) for name, value in states.items()
        }
        predicted = all_rows(self._predict(noised, states, mine), len(chosen))
        weights = min_snr_weights(noised.snr, settings.min_snr_gamma, self.schedule.prediction)
        labels = torch.tensor(self.images.real.labels)[chosen].to(weights.device)
        groups = labels if dm.groups == "class" else None
        diff = diffusion_loss(predicted, noised.target, weights)
        matching = matching_loss(predicted, noised.target, weights, dm.reduction, groups, dm.kernel)
        return {"loss": diff + dm.weight * matching, "diff": diff, "dm": matching}

    def _predict(self, noised: Noised, states: Conditioning, mine: slice) -> Tensor:
        """What the denoiser predicts of this process's images, `micro_batch_size` at once.

        A part's activations are made again for its gradient, so that the losses are those of the
        whole batch and no more than a part's are in memory.
        """
        latents, timesteps = noised.latents[mine], noised.timesteps[mine]
        size = self.settings.micro_batch_size
        if size is None or size >= len(latents):
            return self.generator.denoise(latents, timesteps, states)
        parts = []
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            own = {name: value[rows] for name, value in states.items()}
            parts.append(
                checkpoint(
                    self.generator.denoise, latents[rows], timesteps[rows], own, use_reentrant=False
                )
            )
        return torch.cat(parts)

    def heldout_loss(self, positions: Tensor) -> float:
        """L_diff of held-out images, with the same noise and timesteps every time."""
        rng = torch.Generator().manual_seed(self.settings.seed)
        size = self.settings.micro_batch_size or self.settings.batch_size
        total = 0.0
        for batch in positions.repeat_interleave(DRAWS).split(size):
            clean = self.images.latents[batch].to(self.generator.device)
            noised = draw_noised(self.schedule, clean, "per_sample", rng)
            states = self.images.conditioning(batch, self.generator.device)
            predicted = self.generator.denoise(noised.latents, noised.timesteps, states)
            gamma, prediction = self.settings.min_snr_gamma, self.schedule.prediction
            weights = min_snr_weights(noised.snr, gamma, prediction)
            total += float(diffusion_loss(predicted, noised.target, weights)) * len(batch)
        return total / (len(positions) * DRAWS)


def drop(values: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Replace the rows of `values` (B, ...) that are `dropped` (B,) by `empty` (1, ...)."""
    return torch.where(dropped.to(values.device).view(-1, *[1] * (values.ndim - 1)), empty, values)


def learn_adapter(
    generator: Generator, images: TrainingImages, settings: Adapt, dtype: str, folder: Path
) -> None:
    """Train a LoRA on the real images; the denoiser keeps it.

    A dropped caption is the empty prompt, without visual guidance. In scope class every class has a
    LoRA of its own, learned from its images alone in an equal part of the steps, at least one.
    Checkpoints, ``log.csv`` and previews go to `folder`, or to a folder in it named after the
    label.
    """
    states = images.states.of([""], negative=True)
    empty = {name: value.to(generator.device) for name, value in states.items()}
    schedule = noise_schedule(generator.scheduler, generator.device)
    objective = AdapterObjective(generator, images, empty, schedule, settings)
    kept, held = split_classes(images.real, "adapt", settings.choose, settings.seed)
    loop = loop_settings(settings, dtype)
    generator.denoiser.train()
    with generator.checkpointed(settings.gradient_checkpointing):
        if settings.scope == "set":
            members = torch.cat(list(kept.values())).sort().values
            learn_lora(objective, WHOLE_SET, members, torch.cat(list(held.values())), loop, folder)
        else:
            steps = max(1, settings.steps // len(kept))
            for label, members in kept.items():
                name, own_folder = class_adapter(label), folder / str(label)
                own_folder.mkdir(exist_ok=True)
                own = replace(loop, name=f"adapt {name}", steps=steps)
                learn_lora(objective, name, members, held[label], own, own_folder)
    generator.denoiser.eval()


def loop_settings(settings: Adapt, dtype: str) -> LoopSettings:
    """How the section `adapt` optimizes."""
    return LoopSettings(
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


def learn_lora(
    objective: AdapterObjective,
    name: str,
    members: Tensor,
    held: Tensor,
    loop: LoopSettings,
    folder: Path,
) -> None:
    """Train one LoRA on the images `members`, chosen by the loss of the images `held`, if any."""
    parameters = add_lora(objective.generator, objective.settings, name)

    def heldout() -> dict[str, float]:
        return dict.fromkeys(parameters, objective.heldout_loss(held))

    optimize(
        parameters,
        partial(objective.losses, members),
        folder,
        loop,
        heldout if len(held) else None,
        _previews(objective, members, folder),
    )


def _previews(
    objective: AdapterObjective, members: Tensor, folder: Path
) -> Callable[[int], None] | None:
    """Previews of the first image of each of the first few classes among `members`."""
    every, generator, images = (
        objective.settings.preview_every,
        objective.generator,
        objective.images,
    )
    if every is None:
        return None
    labels = torch.tensor(images.real.labels)[members]
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique()[:PREVIEWED]]
    conditioning = images.conditioning(members[firsts], generator.device)
    shape = images.latents.shape[1:]
    return Previews(generator, conditioning, objective.empty, shape, every, folder).after_step


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
    sections = [section.model_dump() for section in (settings, visual_guidance)]
    sections.append(prompts.model_dump(include=set(TRAINING_PIECES)))
    files = [inputs.real, inputs.captions, inputs.features, inputs.style]
    return scratch_key(__file__, [*sections, generator.arithmetic], generator.path, *files)


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
    # In this order: none starts before the first may write.
    with scratch("adapt", key) as folder, joined():
        if not settings.enabled:
            if is_first():
                publish(write_no_adapter(folder), out)
            return
        frozen = replace(generator, dtype=training_dtype(generator.dtype))
        opened = Generator.open(frozen, parts=[])
        style = opened.add_style(inputs.style)
        images = read_images(opened, inputs, style, prompts, visual_guidance)
        learn_adapter(opened, images, settings, generator.dtype, folder)
        if not is_first():
            return
        shape = lora_shape(opened, settings)
        files = write_adapter(folder, opened.pipeline, shape, style.fingerprint)
        logs = [file.with_name(LOG_FILE) for file in files[1:]]
        previews = sorted(folder.glob(f"**/{PREVIEW_FOLDER}/*.png"))
        for file in [*files, *logs, *previews]:
            publish([file], out / file.parent.relative_to(folder))


def read_images(
    generator: Generator,
    inputs: AdaptInputs,
    style: Style,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
) -> TrainingImages:
    """The real images with their prompts and guidance vectors; their latents and states are made
    with nothing else on the device, and then the denoiser is alone on it.
    """
    real = ImageSet(inputs.real)
    features = read_features(inputs.features, real.keys)
    vectors = guidance_vectors(generator, features, real.labels, visual_guidance)
    names = real.index["class_name"].tolist()
    captions = read_captions(inputs.captions, real.keys)
    styles = [style.text(name) for name in names]
    texts = training_prompts(generator.reader, prompts, real.keys, names, captions, styles)
    generator.place(["vae"])
    latents = generator.encode_images(real)
    generator.place(generator.encoders)
    states = map_states(generator, texts, [""])
    generator.place([generator.family.denoiser])
    return TrainingImages(real, latents, texts, states, vectors)

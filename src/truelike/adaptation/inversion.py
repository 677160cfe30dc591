"""Style inversion (BT): new tokens whose embedding makes prompts look like the whole data set, or
each like a class.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truelike.adaptation.heldout import DRAWS, split_classes
from truelike.adaptation.loop import LOG_FILE, LoopSettings, optimize
from truelike.adaptation.objective import NoiseSchedule, diffusion_loss, draw_noised, noise_schedule
from truelike.adaptation.settings import Invert
from truelike.generator.generator import Generator
from truelike.generator.prompts import inversion_prompt, truncated
from truelike.generator.style import Style, add_tokens, write_style
from truelike.imageset.reading import ImageSet
from truelike.runtime.devices import training_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model
from truelike.runtime.scratch import publish, scratch, scratch_key


def style_tokens(token: str, count: int) -> tuple[str, ...]:
    """The words of a style of `count` tokens: ``<style>``, then ``<style>_1``, ``<style>_2``,
    ...
    """
    return (token, *(f"{token}_{number}" for number in range(1, count)))


def class_styles(settings: Invert, class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words of each class's style: the same for all, or in scope class ``<style>-0``,
    ``<style>-1``, ...
    """
    bases = [
        f"{settings.token}-{n}" if settings.scope == "class" else settings.token
        for n in range(len(class_names))
    ]
    tokens = [style_tokens(base, settings.tokens_per_style) for base in bases]
    return dict(zip(class_names, tokens, strict=True))


def style_of(settings: Invert, class_names: Sequence[str]) -> Style:
    """The style that `settings` describe, without the fingerprint of what was learned."""
    if not settings.enabled:
        return Style(enabled=False)
    styles = class_styles(settings, class_names)
    tokens = dict.fromkeys(token for style in styles.values() for token in style)
    classes = styles if settings.scope == "class" else None
    return Style(enabled=True, token=settings.token, tokens=tuple(tokens), classes=classes)


def initial_embedding(generator: Generator, initializer: str) -> Tensor:
    """The mean token embedding of a text, float32 of shape (W,), W the widths of all text encoders
    together.

    Raises TruelikeError for a text without tokens.
    """
    means = []
    for tokenizer, text_encoder in generator.text_encoders.values():
        tokens = tokenizer(initializer, add_special_tokens=False).input_ids
        if not tokens:
            raise TruelikeError(
                f"invert.initializer: {initializer!r} has no token; give a word such as 'photo'"
            )
        rows = text_encoder.get_input_embeddings().weight[tokens]
        means.append(rows.detach().float().mean(dim=0))
    return torch.cat(means)


def split_rows(generator: Generator, rows: Tensor) -> dict[str, Tensor]:
    """The part (tokens, W) of each text encoder in rows as wide as all of them together."""
    encoders = generator.text_encoders
    widths = [encoder.get_input_embeddings().weight.shape[1] for _, encoder in encoders.values()]
    return dict(zip(encoders, rows.split(widths, dim=1), strict=True))


@contextmanager
def new_rows(tokenizer: Any, text_encoder: Any, token: str, rows: Tensor) -> Iterator[None]:
    """While open, `token` and those after it are embedded as `rows` (tokens, W), with gradients."""
    first = tokenizer.convert_tokens_to_ids(token)

    def insert(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        new = inputs[0] >= first
        return torch.where(
            new[..., None], rows[(inputs[0] - first).clamp(min=0)].to(output), output
        )

    hook = text_encoder.get_input_embeddings().register_forward_hook(insert)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class ClassPrompt:
    """A class's prompt with its style, the first word of that style, and the positions of the
    images to learn from and to choose by.
    """

    prompt: str
    token: str
    images: Tensor
    held_out: Tensor


def class_prompts(real: ImageSet, settings: Invert) -> list[ClassPrompt]:
    """The prompt of every class that is present."""
    styles = class_styles(settings, real.class_names)
    kept, held = split_classes(real, "invert", settings.choose, settings.seed)
    prompts = []
    for label, images in kept.items():
        name = real.class_names[label]
        text = inversion_prompt(settings.template, name, " ".join(styles[name]))
        prompts.append(ClassPrompt(text, styles[name][0], images, held[label]))
    return prompts


@dataclass(frozen=True)
class StyleObjective:
    """The loss of style inversion: E || eps - eps_theta(z_t, t, tau(prompt(y; S))) ||^2.

    `rows` are each style's new rows (tokens, W) by its first word: tensors of their own that take
    the place of the embedding's output, so no other row can change.
    """

    generator: Generator
    latents: Tensor
    schedule: NoiseSchedule
    classes: list[ClassPrompt]
    rows: dict[str, Tensor]
    settings: Invert

    def loss_of(self, own: ClassPrompt, images: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of images (their positions) of a class."""
        clean = self.latents[images].to(self.generator.device)
        noised = draw_noised(self.schedule, clean, "per_sample", rng)
        with ExitStack() as hooks:
            for name, rows in split_rows(self.generator, self.rows[own.token]).items():
                tokenizer, text_encoder = self.generator.text_encoders[name]
                hooks.enter_context(new_rows(tokenizer, text_encoder, own.token, rows))
            conditioning = self.generator.encode([own.prompt])
        states = {
            name: value.expand(len(clean), *value.shape[1:]) for name, value in conditioning.items()
        }
        predicted = self.generator.denoise(noised.latents, noised.timesteps, states)
        return diffusion_loss(predicted, noised.target, torch.ones_like(noised.snr))

    def losses(self, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """A class drawn uniformly, or in turn in scope class, then real images of that class."""
        drawn = int(torch.randint(len(self.classes), (1,), generator=rng))
        own = self.classes[step % len(self.classes) if self.settings.scope == "class" else drawn]
        chosen = torch.randint(len(own.images), (self.settings.batch_size,), generator=rng)
        return {"loss": self.loss_of(own, own.images[chosen], rng)}

    def heldout_losses(self) -> dict[str, float]:
        """The mean over its classes of each style's loss on their held-out images, with the same
        noise and timesteps every time.
        """
        losses: dict[str, list[float]] = {}
        for own in self.classes:
            rng = torch.Generator().manual_seed(self.settings.seed)
            batches = own.held_out.repeat_interleave(DRAWS).split(self.settings.batch_size)
            total = sum(float(self.loss_of(own, batch, rng)) * len(batch) for batch in batches)
            losses.setdefault(own.token, []).append(total / (len(own.held_out) * DRAWS))
        return {token: sum(values) / len(values) for token, values in losses.items()}


def learn_style(
    generator: Generator, real: ImageSet, settings: Invert, dtype: str, folder: Path
) -> dict[str, Tensor]:
    """Learn S* = argmin_S E || eps - eps_theta(z_t, t, tau(prompt(y; S))) ||^2, float32 (tokens, W)
    per text encoder.

    Each step draws a class uniformly, then real images of that class; in scope class the classes
    take turns, and a step changes the style of its class alone. Checkpoints and ``log.csv`` go to
    `folder`.
    """
    styles = class_styles(settings, real.class_names)
    initial = initial_embedding(generator, settings.initializer).to(generator.device)
    for tokenizer, text_encoder in generator.text_encoders.values():
        add_tokens(tokenizer, text_encoder, style_of(settings, real.class_names).tokens)
    rows = {
        style[0]: initial.repeat(len(style), 1).requires_grad_()
        for style in dict.fromkeys(styles.values())
    }
    classes = class_prompts(real, settings)
    truncated(generator.reader, [own.prompt for own in classes])
    latents = _latents(generator, real)
    schedule = noise_schedule(generator.scheduler, generator.device)
    objective = StyleObjective(generator, latents, schedule, classes, rows, settings)
    loop = LoopSettings(
        name="invert",
        dtype=dtype,
        steps=settings.steps,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        checkpoint_every=settings.checkpoint_every,
    )
    heldout = objective.heldout_losses if settings.choose == "best" else None
    with generator.checkpointed("auto"):
        optimize(rows, objective.losses, folder, loop, heldout)
    return split_rows(generator, torch.cat(list(rows.values())).detach())


def _latents(generator: Generator, real: ImageSet) -> Tensor:
    """The latents of the real images; then the VAE leaves the device, and the rest comes."""
    generator.place(["vae"])
    latents = generator.encode_images(real)
    generator.place([name for name in generator.modules if name != "vae"])
    return latents


def style_key(settings: Invert, generator: Model, real: Path) -> str:
    """Changes with everything that decides what a style learns."""
    return scratch_key(
        __file__, [settings.model_dump(), generator.arithmetic], generator.path, real
    )


def invert(settings: Invert, generator: Model, real: Path, out: Path) -> None:
    """Learn the style of the image set `real`, or none where it is turned off, and write it to
    `out`.
    """
    images = ImageSet(real)
    with scratch("invert", style_key(settings, generator, real)) as folder:
        style = style_of(settings, images.class_names)
        if not settings.enabled:
            publish(write_style(folder, style, None), out)
            return
        frozen = replace(generator, dtype=training_dtype(generator.dtype))
        opened = Generator.open(frozen, parts=["vae"])
        learned = learn_style(opened, images, settings, generator.dtype, folder)
        publish([*write_style(folder, style, learned), folder / LOG_FILE], out)

"""Style inversion (BT): new tokens whose embedding makes prompts look like the whole data set, or
each like a class.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from truelike.adaptation.loop import LOG_FILE, optimize
from truelike.adaptation.objective import diffusion_loss, draw_noised, noise_schedule
from truelike.adaptation.settings import Invert
from truelike.generator.families import family_of, text_encoders
from truelike.generator.pipeline import (
    EMBEDS_FILE,
    STYLE_FILE,
    Style,
    add_tokens,
    encode_images,
    open_generator,
    pack_embeds,
)
from truelike.generator.prompts import inversion_prompt, truncated
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model
from truelike.runtime.scratch import fingerprint, publish, scratch, scratch_key, write_once

HELD_OUT, DRAWS = (
    0.1,
    8,
)  # of invert.choose "best": the share of a class's images, the noise draws of each


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


def distinct_tokens(styles: dict[str, tuple[str, ...]]) -> list[str]:
    """All words of the classes' styles, each once."""
    return list(dict.fromkeys(token for style in styles.values() for token in style))


def initial_embedding(pipeline: Any, initializer: str) -> Tensor:
    """The mean token embedding of a text, float32 of shape (W,), W the widths of all text encoders
    together.

    Raises TruelikeError for a text without tokens.
    """
    means = []
    for tokenizer, text_encoder in text_encoders(pipeline).values():
        tokens = tokenizer(initializer, add_special_tokens=False).input_ids
        if not tokens:
            raise TruelikeError(
                f"invert.initializer: {initializer!r} has no token; give a word such as 'photo'"
            )
        means.append(
            text_encoder.get_input_embeddings().weight[tokens].detach().float().mean(dim=0)
        )
    return torch.cat(means)


def split_rows(pipeline: Any, rows: Tensor) -> dict[str, Tensor]:
    """The part (tokens, W) of each text encoder in rows as wide as all of them together."""
    encoders = text_encoders(pipeline)
    widths = [
        text_encoder.get_input_embeddings().weight.shape[1] for _, text_encoder in encoders.values()
    ]
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


def hold_out(real: ImageSet, settings: Invert) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The positions of the training images to learn from and to choose by, for each class that is
    present.

    With ``choose: best`` a tenth of each class's training images, at least one, is left out of
    learning; with ``last`` none. Raises TruelikeError if a class has a single image and one is to
    be left out.
    """
    labels = torch.tensor(real.labels)
    members = {label: (labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))}
    if settings.choose == "last":
        return members, {}
    generator = torch.Generator().manual_seed(settings.seed)
    kept, held = {}, {}
    for label, positions in members.items():
        if len(positions) < 2:
            raise TruelikeError(
                f"invert.choose is 'best', but the class {real.class_names[label]!r} has 1 "
                "training image: "
                "give at least 2 per class, or set invert.choose to 'last'"
            )
        count = max(1, int(HELD_OUT * len(positions)))
        shuffled = positions[torch.randperm(len(positions), generator=generator)]
        held[label], kept[label] = shuffled[:count], shuffled[count:]
    return kept, held


def learn_style(
    pipeline: Any, real: ImageSet, settings: Invert, dtype: str, folder: Path
) -> dict[str, Tensor]:
    """Learn S* = argmin_S E || eps - eps_theta(z_t, t, tau(prompt(y; S))) ||^2, float32 (tokens, W)
    per text encoder.

    Each step draws a class uniformly, then real images of that class; in scope class the classes
    take turns, and a step changes the style of its class alone. The new rows are tensors of their
    own that take the place of the embedding's output, so no other row can change. Checkpoints and
    ``log.csv`` go to `folder`.
    """
    styles = class_styles(settings, real.class_names)
    initial = initial_embedding(pipeline, settings.initializer)
    for tokenizer, text_encoder in text_encoders(pipeline).values():
        add_tokens(tokenizer, text_encoder, distinct_tokens(styles))
    learned = {
        style[0]: initial.repeat(len(style), 1).requires_grad_()
        for style in dict.fromkeys(styles.values())
    }
    members, held = hold_out(real, settings)
    present = list(members)
    words = [styles[real.class_names[label]] for label in present]
    prompts = [
        inversion_prompt(settings.template, real.class_names[label], " ".join(style))
        for label, style in zip(present, words, strict=True)
    ]
    truncated(pipeline.tokenizer, prompts)
    latents = encode_images(pipeline, real)
    schedule = noise_schedule(pipeline.scheduler, pipeline.device)

    def loss_of(place: int, images: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of images (their positions) of the class at `place` in `present`."""
        clean = latents[images].to(pipeline.device)
        noised = draw_noised(schedule, clean, "per_sample", generator)
        token, family = words[place][0], family_of(pipeline)
        with ExitStack() as hooks:
            for name, rows in split_rows(pipeline, learned[token]).items():
                hooks.enter_context(new_rows(*text_encoders(pipeline)[name], token, rows))
            conditioning = family.encode(pipeline, prompts[place])
        context = {
            name: value.expand(len(clean), *value.shape[1:]) for name, value in conditioning.items()
        }
        predicted = family.denoise(pipeline, noised.latents, noised.timesteps, context)
        return diffusion_loss(predicted, noised.target, torch.ones_like(noised.snr))

    def losses_of(generator: torch.Generator, step: int) -> dict[str, Tensor]:
        drawn = int(torch.randint(len(present), (1,), generator=generator))
        place = step % len(present) if settings.scope == "class" else drawn
        images = members[present[place]]
        chosen = torch.randint(len(images), (settings.batch_size,), generator=generator)
        return {"loss": loss_of(place, images[chosen], generator)}

    def heldout_losses() -> dict[str, float]:
        losses: dict[str, list[float]] = {}
        for place, label in enumerate(present):
            generator = torch.Generator().manual_seed(
                settings.seed
            )  # the same noise and timesteps every time
            batches = held[label].repeat_interleave(DRAWS).split(settings.batch_size)
            total = sum(float(loss_of(place, batch, generator)) * len(batch) for batch in batches)
            losses.setdefault(words[place][0], []).append(total / (len(held[label]) * DRAWS))
        return {token: sum(values) / len(values) for token, values in losses.items()}

    optimize(
        learned,
        losses_of,
        folder,
        name="invert",
        dtype=dtype,
        steps=settings.steps,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        clip=None,
        seed=settings.seed,
        checkpoint_every=settings.checkpoint_every,
        heldout=heldout_losses if settings.choose == "best" else None,
    )
    return split_rows(pipeline, torch.cat(list(learned.values())).detach())


def write_style(
    folder: Path, settings: Invert, class_names: Sequence[str], learned: dict[str, Tensor] | None
) -> list[Path]:
    """Write ``style.json`` and, unless `learned` is None, ``learned_embeds.safetensors``; return
    the finished files.
    """
    if learned is None:
        write_once(folder / STYLE_FILE, Style(enabled=False).save)
        return [folder / STYLE_FILE]
    styles = class_styles(settings, class_names)
    tokens = distinct_tokens(styles)
    write_once(folder / EMBEDS_FILE, lambda path: save_file(pack_embeds(tokens, learned), path))
    mark = fingerprint(tokens, folder / EMBEDS_FILE)
    classes = styles if settings.scope == "class" else None
    style = Style(
        enabled=True, token=settings.token, tokens=tuple(tokens), classes=classes, fingerprint=mark
    )
    write_once(folder / STYLE_FILE, style.save)
    return [folder / STYLE_FILE, folder / EMBEDS_FILE, folder / LOG_FILE]


def invert(settings: Invert, generator: Model, real: Path, out: Path) -> None:
    """Learn the style of the image set `real`, or none where it is turned off, and write it to
    `out`.
    """
    images = ImageSet(real)
    with scratch(
        "invert",
        scratch_key(__file__, [settings.model_dump(), generator.dtype], generator.path, real),
    ) as folder:
        learned = None
        if settings.enabled:
            learned = learn_style(
                open_generator(replace(generator, dtype="float32")),
                images,
                settings,
                generator.dtype,
                folder,
            )
        publish(write_style(folder, settings, images.class_names, learned), out)

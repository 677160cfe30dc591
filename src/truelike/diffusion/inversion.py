"""Dataset style inversion (BT): one new token, or a few, whose embedding makes prompts look like the whole data set."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from truelike.config import Invert
from truelike.data.imageset import ImageSet
from truelike.diffusion.conditioning import tokenize
from truelike.diffusion.loop import LOG_FILE, optimize
from truelike.diffusion.objective import add_noise, diffusion_loss, sample_timesteps, target
from truelike.errors import TruelikeError
from truelike.models.generator import EMBEDS_FILE, STYLE_FILE, Style, add_tokens, encode_images
from truelike.prompts import inversion_prompt, truncated
from truelike.scratch import fingerprint, write_once


def style_tokens(token: str, count: int) -> list[str]:
    """The words of a style of `count` tokens: ``<style>``, then ``<style>_1``, ``<style>_2``, ..."""
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def initial_embedding(pipeline: Any, initializer: str) -> Tensor:
    """The mean token embedding of a text, float32 of shape (W,); raises TruelikeError for a text without tokens."""
    tokens = pipeline.tokenizer(initializer, add_special_tokens=False).input_ids
    if not tokens:
        raise TruelikeError(f"invert.initializer: {initializer!r} has no token; give a word such as 'photo'")
    return pipeline.text_encoder.get_input_embeddings().weight[tokens].detach().float().mean(dim=0)


def learn_style(pipeline: Any, real: ImageSet, settings: Invert, dtype: str, folder: Path) -> Tensor:
    """Learn S* = argmin_S E || eps - eps_theta(z_t, t, tau(prompt(y; S))) ||^2 and return it, float32 (tokens, W).

    Each step draws a class uniformly, then real images of that class. The new rows are a tensor of their own that takes
    the place of the embedding's output, so no other row can change. Checkpoints and ``log.csv`` go to `folder`.
    """
    tokens = style_tokens(settings.token, settings.tokens_per_style)
    initial = initial_embedding(pipeline, settings.initializer)
    first = add_tokens(pipeline, tokens)
    learned = initial.repeat(len(tokens), 1).requires_grad_()

    def insert(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        new = inputs[0] >= first
        return torch.where(new[..., None], learned[(inputs[0] - first).clamp(min=0)].to(output), output)

    present = sorted(set(real.labels.tolist()))
    prompts = [inversion_prompt(settings.template, real.class_names[label], " ".join(tokens)) for label in present]
    truncated(pipeline.tokenizer, prompts)
    ids = tokenize(pipeline.tokenizer, prompts).to(pipeline.device)
    members = [torch.from_numpy(np.flatnonzero(real.labels == label)) for label in present]
    latents = encode_images(pipeline, real)
    scheduler = pipeline.scheduler
    alphas = scheduler.alphas_cumprod.to(pipeline.device)
    kind = scheduler.config.prediction_type

    def losses_of(generator: torch.Generator) -> dict[str, Tensor]:
        chosen = int(torch.randint(len(present), (1,), generator=generator))
        drawn = torch.randint(len(members[chosen]), (settings.batch_size,), generator=generator)
        clean = latents[members[chosen][drawn]]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        timesteps = sample_timesteps(len(clean), len(alphas), "per_sample", generator).to(clean.device)
        states = pipeline.text_encoder(ids[chosen : chosen + 1])[0].expand(len(clean), -1, -1)
        noisy = add_noise(clean, noise, alphas, timesteps)
        predicted = pipeline.unet(noisy, timesteps, encoder_hidden_states=states).sample
        wanted = target(clean, noise, alphas, timesteps, kind)
        return {"loss": diffusion_loss(predicted, wanted, torch.ones_like(timesteps, dtype=torch.float32))}

    hook = pipeline.text_encoder.get_input_embeddings().register_forward_hook(insert)
    try:
        optimize(
            {"style": learned},
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
        )
    finally:
        hook.remove()
    return learned.detach()


def write_style(folder: Path, settings: Invert, learned: Tensor | None) -> list[Path]:
    """Write ``style.json`` and, unless `learned` is None, ``learned_embeds.safetensors``; return the finished files."""
    if learned is None:
        write_once(folder / STYLE_FILE, Style(enabled=False).save)
        return [folder / STYLE_FILE]
    tokens = style_tokens(settings.token, settings.tokens_per_style)
    embeds = {token: vector[None].contiguous().cpu() for token, vector in zip(tokens, learned, strict=True)}
    write_once(folder / EMBEDS_FILE, lambda path: save_file(embeds, path))
    mark = fingerprint(tokens, folder / EMBEDS_FILE)
    style = Style(enabled=True, token=settings.token, tokens=tuple(tokens), fingerprint=mark)
    write_once(folder / STYLE_FILE, style.save)
    return [folder / STYLE_FILE, folder / EMBEDS_FILE, folder / LOG_FILE]

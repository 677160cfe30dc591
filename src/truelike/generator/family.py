"""What a family of text-to-image models is: how it reads prompts, calls its denoiser and makes
latents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from truelike.generator.latents import decode_scaled, encode_scaled

Conditioning = dict[str, Tensor]
"""What conditions the denoiser: ``encoder_hidden_states`` (N, L, W) and, in some families, their
mask (N, L), pooled embeddings (N, D), or the guidance scale (N,) that the denoiser is told.
"""


def as_it_is(tokenizer: Any, prompt: str) -> str:
    """A prompt that is read without anything around it."""
    return prompt


def guide_linearly(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): u + scale (c - u)."""
    return unconditional + scale * (conditional - unconditional)


def told_scale(conditioning: Conditioning, latents: Tensor) -> Tensor:
    """The guidance scale (N,) that a guidance-distilled denoiser is told: 1, which is none, where
    the conditioning does not say.
    """
    given = conditioning.get("guidance")
    return latents.new_ones(len(latents)) if given is None else given


@dataclass(frozen=True)
class Family:
    """A family of pipelines as data.

    `denoiser` is the pipeline's attribute that LoRA adapts at the modules of `attention`, a ``*``
    in a name standing for anything; `encode` gives the conditioning of N prompts, with gradients if
    they are on, and `encode_negative`, where it differs, that of negative and empty ones; `denoise`
    calls the denoiser on noisy latents at timesteps; `guide` joins what it says with and without
    the prompt.

    `encoders` maps the name of a style's vectors to the tokenizer and text encoder that they belong
    to; `tokenizer` names the one that cuts a prompt, after `limit` tokens or else at its own limit,
    of the text `written` around the prompt; `options` are for ``from_pretrained``; `upcasts_vae`
    says that the VAE overflows in float16 where its config says so.

    `to_latents` and `to_images` call the VAE on images (N, 3, H, W) from -1 to 1; `fold` is the
    side of the squares of the VAE's latents that become channels, `patch` that of the squares which
    the denoiser takes as one, where its config does not say. With `even_sigmas` a flow's schedule
    goes evenly from 1 to 1 / steps, and `mu` is its shift, from the scheduler's config, the shape
    (C, h, w) of the latents and the number of steps.
    """

    denoiser: str
    attention: Mapping[str, tuple[str, ...]]
    encode: Callable[[Any, Sequence[str]], Conditioning]
    denoise: Callable[[Any, Tensor, Tensor, Conditioning], Tensor]
    encode_negative: Callable[[Any, Sequence[str]], Conditioning] | None = None
    guide: Callable[[Tensor, Tensor, float], Tensor] = guide_linearly
    encoders: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    visual_guidance: bool = False
    tokenizer: str = "tokenizer"
    limit: int | None = None
    written: Callable[[Any, str], str] = as_it_is
    options: Mapping[str, Any] = field(default_factory=dict)
    upcasts_vae: bool = False
    to_latents: Callable[[Any, Tensor], Tensor] = encode_scaled
    to_images: Callable[[Any, Tensor], Tensor] = decode_scaled
    fold: int = 1
    patch: int | None = None
    even_sigmas: bool = False
    mu: Callable[[Mapping[str, Any], Sequence[int], int], float] | None = None

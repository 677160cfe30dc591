"""Latents: how each kind of VAE makes them of images and images of them, and how transformers take
them as tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def vae_factor(config: Mapping[str, Any]) -> int:
    """How many pixels of a side become one latent, from a VAE's config."""
    if "temperal_downsample" in config:  # Qwen-Image's
        return int(2 ** len(config["temperal_downsample"]))
    levels = config.get("encoder_block_out_channels") or config["block_out_channels"]
    return int(2 ** (len(levels) - 1))


def latent_channels(config: Mapping[str, Any]) -> int:
    """The channels of a VAE's latents, from its config."""
    return int(config["z_dim"] if "z_dim" in config else config["latent_channels"])


def most_likely(encoded: Any) -> Tensor:
    """The latents of encoded images: the mode of a posterior, or those of a VAE that has none."""
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


def encode_scaled(vae: Any, images: Tensor) -> Tensor:
    """Latents (N, C, h, w) shifted and scaled by the two numbers of the VAE's config."""
    shift = vae.config.get("shift_factor") or 0.0
    return (most_likely(vae.encode(images)) - shift) * vae.config.scaling_factor


def decode_scaled(vae: Any, latents: Tensor) -> Tensor:
    """The images of latents that `encode_scaled` made."""
    shift = vae.config.get("shift_factor") or 0.0
    return vae.decode(latents / vae.config.scaling_factor + shift, return_dict=False)[0]


def encode_normalised(vae: Any, images: Tensor) -> Tensor:
    """FLUX.2: squares of 2 x 2 latents become channels, normalised by the statistics that the VAE's
    batch norm has collected.
    """
    mean, std = _statistics(vae)
    return (F.pixel_unshuffle(most_likely(vae.encode(images)), 2) - mean) / std


def decode_normalised(vae: Any, latents: Tensor) -> Tensor:
    """The images of latents that `encode_normalised` made."""
    mean, std = _statistics(vae)
    return vae.decode(F.pixel_shuffle(latents * std + mean, 2), return_dict=False)[0]


def encode_standardised(vae: Any, images: Tensor) -> Tensor:
    """Qwen-Image: an image is a video of one frame; each channel has a mean and a deviation in the
    VAE's config.
    """
    mean, deviation = _channel_statistics(vae, images)
    return (most_likely(vae.encode(images[:, :, None]))[:, :, 0] - mean) / deviation


def decode_standardised(vae: Any, latents: Tensor) -> Tensor:
    """The images of latents that `encode_standardised` made."""
    mean, deviation = _channel_statistics(vae, latents)
    frames = (latents * deviation + mean)[:, :, None]
    return vae.decode(frames, return_dict=False)[0][:, :, 0]


def _channel_statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    config = vae.config
    mean, deviation = like.new_tensor(config.latents_mean), like.new_tensor(config.latents_std)
    return mean.view(-1, 1, 1), deviation.view(-1, 1, 1)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    norm = vae.bn
    mean, variance = norm.running_mean.view(-1, 1, 1), norm.running_var.view(-1, 1, 1)
    return mean, torch.sqrt(variance + vae.config.batch_norm_eps)


def pack(latents: Tensor) -> Tensor:
    """Squares of 2 x 2 latents (N, C, h, w) as tokens (N, h w / 4, 4 C)."""
    return F.pixel_unshuffle(latents, 2).flatten(2).mT


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The latents (N, C, height, width) that `pack` made tokens of."""
    return F.pixel_shuffle(tokens.mT.unflatten(2, (height // 2, width // 2)), 2)

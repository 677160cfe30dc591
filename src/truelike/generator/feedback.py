"""Feedback guidance: latents are moved on the way to where a criterion of their decoded image is
higher (Feedback-guided synthesis, TMLR 2024, arXiv 2310.00158).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from truelike.generator.family import Conditioning

# Of the criterion, so that gradients do not vanish in float16; exact, and divided out.
SCALE = 2.0**10


@dataclass(frozen=True)
class Feedback:
    """`score` is the criterion (N,) of latents (N, C, h, w) in float32, with gradients; before
    every `every`-th step latents move by `weight` of their own length along its gradient.
    """

    score: Callable[[Tensor], Tensor]
    weight: float
    every: int


def follow(gradient: Tensor, latents: Tensor, weight: float) -> Tensor:
    """The latents (N, C, h, w) after feedback by a float32 gradient of the same shape: z + weight
    |z| g / |g|, each image's own norms, computed in float32. Latents of no gradient stay.
    """
    lengths = _lengths(latents.float()) / _lengths(gradient).clamp_min(1e-30)
    return latents + (weight * lengths * gradient).to(latents)


def criterion_gradient(
    score: Callable[[Tensor], Tensor],
    denoise: Callable[[Tensor, Tensor, Conditioning], Tensor],
    scheduler: Any,
    latents: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
) -> Tensor:
    """The gradient of the criterion of the expected image in the latents, float32, up to SCALE."""
    with torch.enable_grad():
        leaf = latents.detach().float().requires_grad_()
        expected = expected_latents(denoise, scheduler, leaf, latents.dtype, timestep, conditioning)
        (gradient,) = torch.autograd.grad(SCALE * score(expected).sum(), leaf)
    return gradient


def expected_latents(
    denoise: Callable[[Tensor, Tensor, Conditioning], Tensor],
    scheduler: Any,
    latents: Tensor,
    dtype: torch.dtype,
    timestep: Tensor,
    conditioning: Conditioning,
) -> Tensor:
    """What the criterion is asked about: s z_0 + (1 - s) z_t, s the level of the noise, z_0 the
    clean latents that the denoiser, computing in `dtype`, predicts from the conditional prompt.

    Noise levels are those of the checkpoint's training: sqrt(1 - abar), or sigma of flow matching.
    """
    settings = scheduler.config
    if hasattr(scheduler, "scale_noise") or settings.get("use_flow_sigmas"):
        noisy, level = latents, timestep.float() / settings.num_train_timesteps
        predicted = denoise(noisy.to(dtype), timestep, conditioning).float()
        return level * (noisy - level * predicted) + (1 - level) * noisy
    noisy = scheduler.scale_model_input(latents, timestep)  # of variance 1, whatever the sampler's
    predicted = denoise(noisy.to(dtype), timestep, conditioning).float()
    kept = scheduler.alphas_cumprod[timestep.long().cpu()].to(noisy)
    signal, level = kept.sqrt(), (1 - kept).sqrt()
    if settings.prediction_type == "v_prediction":
        clean = signal * noisy - level * predicted
    elif settings.prediction_type == "sample":
        clean = predicted
    else:
        clean = (noisy - level * predicted) / signal
    return level * clean + (1 - level) * noisy


def _lengths(values: Tensor) -> Tensor:
    """The Euclidean norm of each of N tensors, shape (N, 1, 1, 1)."""
    return torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)

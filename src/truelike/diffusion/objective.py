"""The training objective of adaptation by distribution matching (RF): a weighted diffusion loss and a squared MMD."""

from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps; latents and noise (B, C, h, w), timesteps (B,)."""
    abar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt() * latents + (1 - abar).sqrt() * noise


def target(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor, prediction: Prediction) -> Tensor:
    """What the UNet should predict, (B, C, h, w): eps, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) z_0."""
    if prediction == "epsilon":
        return noise
    abar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt() * noise - (1 - abar).sqrt() * latents


def snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Signal-to-noise ratio abar_t / (1 - abar_t), shape (B,)."""
    abar = alphas_cumprod[timesteps]
    return abar / (1 - abar)


def min_snr_weights(ratio: Tensor, gamma: float | None, prediction: Prediction) -> Tensor:
    """Min-SNR weights (Hang et al. 2023) of shape (B,), all at most 1; ones when gamma is None.

    min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v.
    """
    if gamma is None:
        return torch.ones_like(ratio)
    return ratio.clamp(max=gamma) / (ratio if prediction == "epsilon" else ratio + 1)


def diffusion_loss(predicted: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """L_diff = 1/B sum_i w_i mean_chw (pred_i - target_i)^2, a scalar; RF, equation 6."""
    return (weights * (predicted - wanted).square().mean(dim=(1, 2, 3))).mean()


def matching_loss(
    predicted: Tensor,
    wanted: Tensor,
    weights: Tensor,
    reduction: Literal["sum", "mean"],
    labels: Tensor | None = None,
) -> Tensor:
    """L_dm = mean_chw (sum_i w_i pred_i - sum_i w_i target_i)^2, a scalar: squared MMD with a linear kernel (RF).

    ``mean`` divides the sums by the number of images, and is then at most L_diff by Jensen's inequality. With `labels`
    (B,), images are matched within each class that is present, and the classes are averaged.
    """
    residual = weights.view(-1, 1, 1, 1) * (predicted - wanted)
    groups = [residual] if labels is None else [residual[labels == label] for label in labels.unique()]
    sums = torch.stack([group.sum(0) if reduction == "sum" else group.mean(0) for group in groups])
    return sums.square().mean(dim=(1, 2, 3)).mean()


def sample_timesteps(
    count: int, total: int, mode: Literal["per_sample", "shared"], generator: torch.Generator
) -> Tensor:
    """Uniform timesteps below `total`, int64 of shape (count,): one each, or one for the whole batch."""
    drawn = torch.randint(total, (count if mode == "per_sample" else 1,), generator=generator)
    return drawn.expand(count).clone()

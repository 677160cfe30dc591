"""The training objective of adaptation by distribution matching (RF): a weighted diffusion loss and
a squared MMD.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from truelike.generator.samplers import is_flow, make_sampler
from truelike.runtime.errors import TruelikeError

Prediction = Literal["epsilon", "v_prediction", "flow"]


@dataclass(frozen=True)
class NoiseSchedule:
    """z_t = signal_t z_0 + sigma_t eps at each of T training steps, and what a model predicts from
    z_t.

    `signal`, `sigma`, `snr` = signal^2 / sigma^2 and `timesteps`, the time that the model is told,
    have shape (T,).
    """

    prediction: Prediction
    signal: Tensor
    sigma: Tensor
    snr: Tensor
    timesteps: Tensor


def noise_schedule(scheduler: Any, device: torch.device) -> NoiseSchedule:
    """The schedule that a diffusers scheduler trains with.

    Diffusion: signal = sqrt(abar), sigma = sqrt(1 - abar). Flow matching (Esser et al. 2024,
    rectified flow): signal = 1 - sigma, with the scheduler's own, perhaps shifted, sigmas. Raises
    TruelikeError for any other prediction.
    """
    if is_flow(type(scheduler).__name__, scheduler.config):
        flow = make_sampler("euler", scheduler)
        sigma, times = flow.sigmas.to(device), flow.timesteps.to(device)
        return NoiseSchedule("flow", 1 - sigma, sigma, ((1 - sigma) / sigma).square(), times)
    prediction = scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise TruelikeError(
            f"models.generator: its denoiser predicts {prediction!r}, and adapt and invert learn "
            "on 'epsilon', 'v_prediction' or a flow; turn both off, or name another generator"
        )
    abar = scheduler.alphas_cumprod.to(device)
    times = torch.arange(len(abar), device=device)
    return NoiseSchedule(prediction, abar.sqrt(), (1 - abar).sqrt(), abar / (1 - abar), times)


@dataclass(frozen=True)
class Noised:
    """A model's inputs z_t (B, C, h, w) and timesteps (B,), its target (B, C, h, w) and the
    signal-to-noise ratio (B,).

    `target` is eps, v = signal eps - sigma z_0, or for flow matching eps - z_0.
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    snr: Tensor


def add_noise(schedule: NoiseSchedule, clean: Tensor, noise: Tensor, steps: Tensor) -> Noised:
    """Noise latents (B, C, h, w) to training steps (B,), numbers from 0 to T - 1."""
    signal, sigma = (
        values[steps].view(-1, 1, 1, 1) for values in (schedule.signal, schedule.sigma)
    )
    if schedule.prediction == "epsilon":
        target = noise
    elif schedule.prediction == "v_prediction":
        target = signal * noise - sigma * clean
    else:
        target = noise - clean
    return Noised(
        signal * clean + sigma * noise, schedule.timesteps[steps], target, schedule.snr[steps]
    )


def draw_noised(
    schedule: NoiseSchedule,
    clean: Tensor,
    mode: Literal["per_sample", "shared"],
    rng: torch.Generator,
) -> Noised:
    """Noise latents (B, C, h, w) with noise and steps from a random generator on the CPU; `mode` is
    that of `sample_steps`.
    """
    noise = torch.randn(clean.shape, generator=rng).to(clean)
    steps = sample_steps(len(clean), len(schedule.timesteps), mode, rng).to(clean.device)
    return add_noise(schedule, clean, noise, steps)


def sample_steps(
    count: int, total: int, mode: Literal["per_sample", "shared"], rng: torch.Generator
) -> Tensor:
    """Uniform training steps below `total`, int64 of shape (count,): one each, or one for the whole
    batch.
    """
    drawn = torch.randint(total, (count if mode == "per_sample" else 1,), generator=rng)
    return drawn.expand(count).clone()


def min_snr_weights(snr: Tensor, gamma: float | None, prediction: Prediction) -> Tensor:
    """Min-SNR weights (Hang et al. 2023) of shape (B,), all at most 1.

    min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v; ones for flow matching and
    without gamma.
    """
    if gamma is None or prediction == "flow":
        return torch.ones_like(snr)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def diffusion_loss(predicted: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """L_diff = 1/B sum_i w_i mean_chw (pred_i - target_i)^2, a scalar; RF, equation 6."""
    return (weights * (predicted - wanted).square().mean(dim=(1, 2, 3))).mean()


def matching_loss(
    predicted: Tensor,
    wanted: Tensor,
    weights: Tensor,
    reduction: Literal["sum", "mean"],
    labels: Tensor | None = None,
    kernel: Literal["linear", "rbf"] = "linear",
) -> Tensor:
    """L_dm, the squared MMD between the w_i pred_i and the w_i target_i of a batch, a scalar.

    The linear kernel is RF's: mean_chw (sum_i w_i pred_i - sum_i w_i target_i)^2. ``mean`` divides
    the sums by the number of images; with the linear kernel L_dm is then at most L_diff, by
    Jensen's inequality. With `labels` (B,), images are matched within each class that is present,
    and the classes are averaged. ``rbf`` is ours, see `rbf_mmd`; its ``sum`` is, as the linear one,
    the mean form times the squared number of images.
    """
    scale = weights.view(-1, 1, 1, 1)
    if kernel == "rbf":
        pairs = zip(
            _grouped(scale * predicted, labels), _grouped(scale * wanted, labels), strict=True
        )
        return torch.stack(
            [rbf_mmd(a, b) * (len(a) ** 2 if reduction == "sum" else 1) for a, b in pairs]
        ).mean()
    groups = _grouped(scale * (predicted - wanted), labels)
    sums = torch.stack([group.sum(0) if reduction == "sum" else group.mean(0) for group in groups])
    return sums.square().mean(dim=(1, 2, 3)).mean()


def rbf_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared MMD of n and n points with k(x, y) = exp(-d^2 / 2 h^2), d^2 = mean_chw (x - y)^2:
    from 0 to 2, a scalar.

    The biased estimate of Gretton et al. 2012, equation 5. Median heuristic: h^2 is the median (the
    lower one) of d^2 over all pairs of the 2n points; it is a constant for the gradient.
    """
    points = torch.cat([a, b]).flatten(1)
    exact = "donot_use_mm_for_euclid_dist"
    squares = torch.cdist(points, points, compute_mode=exact).square() / points.shape[1]
    rows, columns = torch.triu_indices(len(points), len(points), offset=1)
    width = squares.detach()[rows, columns].median().clamp(min=1e-12)
    kernel = torch.exp(-squares / (2 * width))
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def _grouped(values: Tensor, labels: Tensor | None) -> list[Tensor]:
    return [values] if labels is None else [values[labels == label] for label in labels.unique()]

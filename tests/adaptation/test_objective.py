import math
import statistics

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tiny_models import SCHEDULER
from truelike.adaptation.objective import (
    NoiseSchedule,
    add_noise,
    diffusion_loss,
    draw_noised,
    matching_loss,
    min_snr_weights,
    noise_schedule,
    rbf_mmd,
    sample_steps,
)
from truelike.runtime.errors import TruelikeError

CPU = torch.device("cpu")
LATENTS, NOISE = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
STEPS = torch.tensor([0, 10, 500, 999])


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def diffusion_schedule(prediction: str) -> tuple[DDPMScheduler, NoiseSchedule]:
    config = {
        key: SCHEDULER[key]
        for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    }
    scheduler = DDPMScheduler(**config, prediction_type=prediction)
    return scheduler, noise_schedule(scheduler, CPU)


# Noise, targets and weights


def test_a_denoiser_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(TruelikeError, match="its denoiser predicts 'sample'"):
        diffusion_schedule("sample")


def test_snr_and_weights_by_hand() -> None:
    scheduler = DDPMScheduler(trained_betas=[0.1, 1 - 0.5 / 0.9, 0.8])  # abar = 0.9, 0.5, 0.1
    snr = noise_schedule(scheduler, CPU).snr
    torch.testing.assert_close(snr, torch.tensor([9.0, 1.0, 1 / 9]))
    torch.testing.assert_close(
        min_snr_weights(snr, 5.0, "epsilon"), torch.tensor([5 / 9, 1.0, 1.0])
    )
    torch.testing.assert_close(
        min_snr_weights(snr, 5.0, "v_prediction"), torch.tensor([0.5, 0.5, 0.1])
    )
    for prediction in ("epsilon", "v_prediction", "flow"):
        torch.testing.assert_close(min_snr_weights(snr, None, prediction), torch.ones(3))
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "flow"), torch.ones(3))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_targets_equal_the_scheduler_s(prediction: str) -> None:
    scheduler, schedule = diffusion_schedule(prediction)
    noised = add_noise(schedule, LATENTS, NOISE, STEPS)
    torch.testing.assert_close(noised.latents, scheduler.add_noise(LATENTS, NOISE, STEPS))
    expected = NOISE if prediction == "epsilon" else scheduler.get_velocity(LATENTS, NOISE, STEPS)
    torch.testing.assert_close(noised.target, expected)
    assert torch.equal(noised.timesteps, STEPS)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_equals_the_scheduler_s_and_the_paper_s(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = noise_schedule(scheduler, CPU)
    noised = add_noise(schedule, LATENTS, NOISE, STEPS)
    torch.testing.assert_close(
        noised.latents, scheduler.scale_noise(LATENTS, noised.timesteps, NOISE)
    )
    u = (
        1000 - STEPS
    ) / 1000  # Stable Diffusion 3's resolution-dependent shift of uniform noise levels, from 1 down
    sigma = (shift * u / (1 + (shift - 1) * u)).view(-1, 1, 1, 1)
    torch.testing.assert_close(noised.latents, (1 - sigma) * LATENTS + sigma * NOISE)
    torch.testing.assert_close(noised.timesteps, 1000 * sigma.flatten())
    torch.testing.assert_close(noised.target, NOISE - LATENTS)
    torch.testing.assert_close(noised.latents - sigma * noised.target, LATENTS)


def test_a_draw_s_noise_and_steps_give_its_latents_and_target_back() -> None:
    _, schedule = diffusion_schedule("epsilon")
    noised = draw_noised(schedule, LATENTS, "per_sample", torch.Generator().manual_seed(3))
    abar = (
        DDPMScheduler(**diffusion_schedule("epsilon")[0].config)
        .alphas_cumprod[noised.timesteps]
        .view(-1, 1, 1, 1)
    )
    torch.testing.assert_close(
        noised.latents, abar.sqrt() * LATENTS + (1 - abar).sqrt() * noised.target
    )
    same = draw_noised(schedule, LATENTS, "per_sample", torch.Generator().manual_seed(3))
    assert torch.equal(noised.latents, same.latents)
    shared = draw_noised(schedule, LATENTS, "shared", torch.Generator().manual_seed(3))
    assert len(shared.timesteps.unique()) == 1
    assert len(noised.timesteps.unique()) == 4


def test_steps_are_shared_or_each_image_s_own() -> None:
    own = sample_steps(1000, 50, "per_sample", torch.Generator().manual_seed(0))
    assert set(own.tolist()) == set(range(50))
    shared = sample_steps(1000, 50, "shared", torch.Generator().manual_seed(0))
    assert len(shared) == 1000
    assert len(set(shared.tolist())) == 1


# Losses


def test_losses_by_hand() -> None:
    predicted, wanted, weights = (
        column(1.0, 4.0, 2.0),
        column(0.0, 2.0, 3.0),
        torch.tensor([1.0, 0.5, 1.0]),
    )
    assert diffusion_loss(predicted, wanted, weights).item() == pytest.approx((1 + 0.5 * 4 + 1) / 3)
    residual_sum = 1 + 0.5 * 2 - 1  # opposite errors cancel in the match, not in the diffusion loss
    assert matching_loss(predicted, wanted, weights, "sum").item() == pytest.approx(residual_sum**2)
    assert matching_loss(predicted, wanted, weights, "mean").item() == pytest.approx(
        (residual_sum / 3) ** 2
    )


def test_matching_within_classes_by_hand() -> None:
    predicted, weights, labels = column(1.0, 2.0, -4.0), torch.ones(3), torch.tensor([7, 7, 2])
    zero = torch.zeros_like(predicted)
    assert matching_loss(predicted, zero, weights, "sum", labels).item() == pytest.approx(
        (3**2 + 4**2) / 2
    )
    assert matching_loss(predicted, zero, weights, "mean", labels).item() == pytest.approx(
        (1.5**2 + 4**2) / 2
    )


def test_matching_is_averaged_over_pixels_after_the_square() -> None:
    predicted = torch.tensor([[[[1.0, -1.0]]], [[[1.0, -1.0]]]])
    assert matching_loss(
        predicted, torch.zeros_like(predicted), torch.ones(2), "sum"
    ).item() == pytest.approx(4.0)


def batch(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted, wanted = torch.randn(2, count, 2, 3, 3, generator=generator).unbind()
    weights, labels = (
        torch.rand(count, generator=generator),
        torch.randint(3, (count,), generator=generator),
    )
    return predicted, wanted, weights, labels


def median_width(points: list[torch.Tensor]) -> float:
    pairs = [(x - y).square().mean().item() for i, x in enumerate(points) for y in points[:i]]
    return statistics.median_low(pairs)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_matching_is_the_squared_mmd_of_its_kernel_by_brute_force(
    kernel: str, reduction: str, grouped: bool
) -> None:
    """A sum over all pairs: E k(p, p') + E k(g, g') - 2 E k(p, g), in each class."""
    predicted, wanted, weights, labels = batch(7, 0)
    classes = sorted(set(labels.tolist())) if grouped else [None]
    expected = 0.0
    for label in classes:
        members = [i for i in range(7) if label is None or labels[i] == label]
        p, g = ([weights[i] * values[i] for i in members] for values in (predicted, wanted))
        width = median_width(p + g)

        def k(x: torch.Tensor, y: torch.Tensor, width: float = width) -> float:
            if kernel == "linear":
                return (x * y).mean().item()
            return math.exp(-(x - y).square().mean().item() / (2 * width))

        pairs = [(i, j) for i in range(len(members)) for j in range(len(members))]
        mmd = sum(k(p[i], p[j]) + k(g[i], g[j]) - 2 * k(p[i], g[j]) for i, j in pairs)
        expected += mmd / (1 if reduction == "sum" else len(pairs)) / len(classes)
    found = matching_loss(
        predicted, wanted, weights, reduction, labels if grouped else None, kernel
    )
    assert found.item() == pytest.approx(expected, rel=1e-4)


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([None, 1.0, 5.0]))
def test_jensen_the_mean_form_is_at_most_the_diffusion_loss(
    count: int, seed: int, gamma: float | None
) -> None:
    predicted, wanted, ratio, _ = batch(count, seed)
    weights = min_snr_weights(ratio * 20 + 0.01, gamma, "epsilon")
    bound = diffusion_loss(predicted, wanted, weights)
    mean = matching_loss(predicted, wanted, weights, "mean")
    assert mean <= bound * (1 + 1e-5)
    torch.testing.assert_close(matching_loss(predicted, wanted, weights, "sum"), count**2 * mean)


@given(st.integers(1, 8), st.integers(0, 2**31), st.sampled_from(["linear", "rbf"]))
def test_one_class_is_the_same_as_the_batch(count: int, seed: int, kernel: str) -> None:
    predicted, wanted, weights, _ = batch(count, seed)
    whole = matching_loss(predicted, wanted, weights, "mean", kernel=kernel)
    one = matching_loss(
        predicted, wanted, weights, "mean", torch.zeros(count, dtype=torch.long), kernel
    )
    torch.testing.assert_close(one, whole)


@given(st.integers(1, 8), st.integers(0, 2**31), st.floats(0.01, 100))
def test_rbf_mmd_is_bounded_symmetric_and_free_of_scale(
    count: int, seed: int, scale: float
) -> None:
    a, b, _, _ = batch(count, seed)
    mmd = rbf_mmd(a, b)
    assert -1e-6 <= mmd <= 2
    torch.testing.assert_close(rbf_mmd(b, a), mmd)
    torch.testing.assert_close(rbf_mmd(scale * a, scale * b), mmd, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(rbf_mmd(a, a.flip(0)), torch.tensor(0.0), rtol=0, atol=1e-5)


def test_rbf_mmd_sees_a_spread_that_the_linear_kernel_cannot() -> None:
    predicted, wanted, weights = column(0.0, 0.0), column(-1.0, 1.0), torch.ones(2)
    assert matching_loss(predicted, wanted, weights, "mean").item() == 0
    # squared distances of 0, 0, -1, 1: 0, 1, 1, 1, 1, 4, so h^2 = 1
    expected = 1 + (1 + math.exp(-2)) / 2 - 2 * math.exp(-0.5)
    assert matching_loss(predicted, wanted, weights, "mean", kernel="rbf").item() == pytest.approx(
        expected
    )


def test_the_gradient_of_rbf_mmd_is_finite_and_takes_the_width_as_a_constant() -> None:
    predicted, wanted, _, _ = batch(4, 1)
    predicted.requires_grad_()
    rbf_mmd(predicted, wanted).backward()
    width = median_width([*predicted.detach(), *wanted])

    def fixed(first: torch.Tensor) -> torch.Tensor:
        points = torch.cat([first, wanted])
        kernel = torch.exp(
            -(points[:, None] - points[None]).square().mean(dim=(2, 3, 4)) / (2 * width)
        )
        return kernel[:4, :4].mean() + kernel[4:, 4:].mean() - 2 * kernel[:4, 4:].mean()

    expected = torch.autograd.functional.jacobian(fixed, predicted.detach())
    torch.testing.assert_close(predicted.grad, expected, rtol=1e-3, atol=1e-7)
    perfect = wanted.clone().requires_grad_()
    rbf_mmd(perfect, wanted).backward()
    assert perfect.grad is not None
    torch.testing.assert_close(perfect.grad, torch.zeros_like(wanted))

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import SCHEDULER
from truelike.diffusion.objective import (
    add_noise,
    diffusion_loss,
    matching_loss,
    min_snr_weights,
    sample_timesteps,
    snr,
    target,
)

ABAR = torch.tensor([0.9, 0.5, 0.1])


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_snr_and_weights_by_hand() -> None:
    ratio = snr(ABAR, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(ratio, torch.tensor([9.0, 1.0, 1 / 9]))
    torch.testing.assert_close(min_snr_weights(ratio, 5.0, "epsilon"), torch.tensor([5 / 9, 1.0, 1.0]))
    torch.testing.assert_close(min_snr_weights(ratio, 5.0, "v_prediction"), torch.tensor([0.5, 0.5, 0.1]))
    torch.testing.assert_close(min_snr_weights(ratio, None, "epsilon"), torch.ones(3))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_targets_equal_the_scheduler_s(kind: str) -> None:
    config = {key: SCHEDULER[key] for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")}
    scheduler = DDPMScheduler(**config, prediction_type=kind)
    z, eps = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(add_noise(z, eps, scheduler.alphas_cumprod, t), scheduler.add_noise(z, eps, t))
    expected = eps if kind == "epsilon" else scheduler.get_velocity(z, eps, t)
    torch.testing.assert_close(target(z, eps, scheduler.alphas_cumprod, t, kind), expected)


def test_losses_by_hand() -> None:
    predicted, wanted, weights = column(1.0, 4.0, 2.0), column(0.0, 2.0, 3.0), torch.tensor([1.0, 0.5, 1.0])
    assert diffusion_loss(predicted, wanted, weights).item() == pytest.approx((1 + 0.5 * 4 + 1) / 3)
    residual_sum = 1 + 0.5 * 2 - 1  # opposite errors cancel in the match, not in the diffusion loss
    assert matching_loss(predicted, wanted, weights, "sum").item() == pytest.approx(residual_sum**2)
    assert matching_loss(predicted, wanted, weights, "mean").item() == pytest.approx((residual_sum / 3) ** 2)


def test_matching_within_classes_by_hand() -> None:
    predicted, weights, labels = column(1.0, 2.0, -4.0), torch.ones(3), torch.tensor([7, 7, 2])
    zero = torch.zeros_like(predicted)
    assert matching_loss(predicted, zero, weights, "sum", labels).item() == pytest.approx((3**2 + 4**2) / 2)
    assert matching_loss(predicted, zero, weights, "mean", labels).item() == pytest.approx((1.5**2 + 4**2) / 2)


def test_matching_is_averaged_over_pixels_after_the_square() -> None:
    predicted = torch.tensor([[[[1.0, -1.0]]], [[[1.0, -1.0]]]])
    assert matching_loss(predicted, torch.zeros_like(predicted), torch.ones(2), "sum").item() == pytest.approx(4.0)


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([None, 1.0, 5.0]))
def test_jensen_the_mean_form_is_at_most_the_diffusion_loss(count: int, seed: int, gamma: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, wanted = torch.randn(2, count, 2, 3, 3, generator=generator).unbind()
    weights = min_snr_weights(torch.rand(count, generator=generator) * 20 + 0.01, gamma, "epsilon")
    bound = diffusion_loss(predicted, wanted, weights)
    mean = matching_loss(predicted, wanted, weights, "mean")
    assert mean <= bound * (1 + 1e-5)
    torch.testing.assert_close(matching_loss(predicted, wanted, weights, "sum"), count**2 * mean)


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_one_class_is_the_same_as_the_batch(count: int, seed: int) -> None:
    predicted = torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    arguments = (predicted, torch.zeros_like(predicted), torch.ones(count), "mean")
    torch.testing.assert_close(
        matching_loss(*arguments), matching_loss(*arguments, labels=torch.zeros(count, dtype=torch.long))
    )


def test_timesteps_are_shared_or_each_image_s_own() -> None:
    own = sample_timesteps(1000, 50, "per_sample", torch.Generator().manual_seed(0))
    assert set(own.tolist()) == set(range(50))
    shared = sample_timesteps(1000, 50, "shared", torch.Generator().manual_seed(0))
    assert len(shared) == 1000
    assert len(set(shared.tolist())) == 1

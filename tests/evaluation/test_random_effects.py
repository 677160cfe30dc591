"""The variance of a mean over seeds and images: by hand, in its limits, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from truelike.evaluation.random_effects import crossed_mean


def test_by_hand() -> None:
    found = crossed_mean(np.array([[1.0, 2.0, 6.0], [2.0, 5.0, 8.0]]))
    # Means of seeds 3 and 5, of images 1.5, 3.5 and 7; residuals 0.5, -0.5, 0, mirrored.
    by_seed, by_image, residual = 6.0, 15.5, 0.5
    squares = by_seed + by_image - residual
    freedom = squares**2 / (by_seed**2 / 1 + by_image**2 / 2 + residual**2 / 2)
    assert found.value == pytest.approx(4)
    assert found.error == pytest.approx(np.sqrt(squares / 6))
    assert found.freedom == pytest.approx(freedom)
    reach = stats.t.ppf(0.975, freedom) * found.error
    assert found.interval(0.95).high == pytest.approx(4 + reach)
    assert found.p_value == pytest.approx(2 * stats.t.sf(4 / found.error, freedom))


def test_one_seed_is_the_t_test_over_images() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, (1, 50))
    found = crossed_mean(values)
    assert found.p_value == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue)


def test_images_alike_leave_the_t_test_over_seeds() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, (5, 1)).repeat(40, axis=1)
    found = crossed_mean(values)
    assert found.p_value == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue)


def test_equal_arms_have_no_effect_and_a_constant_difference_no_doubt() -> None:
    assert crossed_mean(np.zeros((3, 10))).p_value == 1
    constant = crossed_mean(np.full((3, 10), 2.0))
    assert constant.p_value == 0
    assert constant.interval(0.95).low == constant.interval(0.95).high == 2


SCORES = arrays(float, st.tuples(st.integers(2, 5), st.integers(2, 8)), elements=st.floats(-9, 9))


@given(SCORES)
def test_neither_images_nor_seeds_are_forgotten(scores: np.ndarray) -> None:
    found = crossed_mean(scores)
    seeds, images = scores.shape
    by_seed = scores.mean(1).var(ddof=1) / seeds
    by_image = scores.mean(0).var(ddof=1) / images
    assert found.error**2 >= max(by_seed, by_image) * (1 - 1e-9) - 1e-12
    assert found.error**2 <= by_seed + by_image + 1e-9


@given(SCORES, st.floats(0.8, 0.99))
def test_an_interval_without_0_is_a_p_value_below_its_level(
    scores: np.ndarray, confidence: float
) -> None:
    found = crossed_mean(scores)
    interval = found.interval(confidence)
    if abs(found.p_value - (1 - confidence)) > 1e-6:
        assert (interval.low > 0 or interval.high < 0) == (found.p_value < 1 - confidence)


def test_the_detectable_effect_is_found_with_a_power_of_80_percent() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (2000, 4, 1)) * 0.3 + rng.normal(0, 1, (2000, 1, 60))
    means = [crossed_mean(sample) for sample in noise]
    effect = np.mean([mean.detectable(0.95) for mean in means])
    power = np.mean([crossed_mean(sample + effect).p_value < 0.05 for sample in noise])
    assert power == pytest.approx(0.8, abs=0.05)


def hits(rng: np.random.Generator, seeds: int, of_seeds: float, of_images: float) -> np.ndarray:
    """Differences of the hits of two arms that are equally good: -100, 0 or 100."""
    images = rng.normal(0, 1, 400) * of_images
    first, second = (
        rng.random((seeds, 400)) < 0.7 + rng.normal(0, of_seeds, (seeds, 1)) + sign * images / 2
        for sign in (1, -1)
    )
    return 100.0 * first - 100.0 * second


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 4, 6])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0, 0.05), (0.01, 0.1), (0.03, 0.05)])
def test_nineteen_of_twenty_intervals_hold_the_truth(
    seeds: int, of_seeds: float, of_images: float
) -> None:
    rng = np.random.default_rng([seeds, round(1000 * of_seeds)])
    found = [crossed_mean(hits(rng, seeds, of_seeds, of_images)) for _ in range(2000)]
    ends = [mean.interval(0.95) for mean in found]
    assert 0.92 <= np.mean([end.low <= 0 <= end.high for end in ends]) <= 0.985
    assert np.mean([end.low > 0 for end in ends]) <= 0.042  # "helped", where nothing did

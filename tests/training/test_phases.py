"""The phases of an arm: steps, learning rates, batches and images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.classifiers import (
    coloured,
    training,
)
from truelike.training.images import Union
from truelike.training.phases import learning_rate, next_positions, phase_images, phase_steps
from truelike.training.settings import Phase


def test_learning_rate_by_hand() -> None:
    rates = [learning_rate(step, 20, 1.0, 0.2, "cosine") for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert learning_rate(0, 10, 2.0, 0.0, "cosine") == 2.0
    assert learning_rate(9, 10, 1.0, 1.0, "cosine") == 1.0
    rates = [
        learning_rate(step, 200, 0.1, 0.0, "steps") for step in (0, 49, 50, 99, 100, 149, 150, 199)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    assert [learning_rate(step, 8, 1.0, 0.25, "steps") for step in range(4)] == [0.5, 1.0, 0.2, 0.2]


@given(st.integers(1, 2000), st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_every_arm_has_the_same_number_of_steps(steps: int, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = phase_steps(steps, shares)
    assert sum(found) == steps
    assert all(abs(count - steps * share) <= 1 for count, share in zip(found, shares, strict=True))


@given(size=st.integers(1, 40), batch=st.integers(1, 16))
@settings(deadline=None)
def test_batches_are_full_and_pass_over_all_images_evenly(size: int, batch: int) -> None:
    rng, waiting, batches = np.random.default_rng(0), np.zeros(0, int), []
    for _ in range(20):
        positions, waiting = next_positions(waiting, size, batch, rng)
        batches.append(positions)
    assert all(len(positions) == batch for positions in batches)
    counts = np.bincount(np.concatenate(batches), minlength=size)
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 53), min_size=1, max_size=80))
@settings(max_examples=30, deadline=None)
def test_a_union_is_the_two_sets_one_after_the_other(positions: list[int]) -> None:
    first, second = coloured(30, 0), coloured(24, 1)
    union = Union(first, second)
    joined = np.concatenate([first.pixels, second.pixels])
    np.testing.assert_array_equal(union.take(np.array(positions)), joined[positions])
    np.testing.assert_array_equal(union.labels, np.concatenate([first.labels, second.labels]))
    assert len(union) == 54


def test_soft_labels_are_the_teachers_beside_one_hot_real_ones(classifier: str) -> None:
    work = training(classifier, Phase(on="real+partner", soft_labels=0.75))
    taught = np.random.default_rng(0).dirichlet(np.ones(3), 24).astype(np.float32)
    (union,) = phase_images(work.phases[0], work.real, work.partner, taught)
    np.testing.assert_array_equal(union.labels[:30], np.eye(3)[work.real.labels])
    expected = 0.75 * taught + 0.25 * np.eye(3)[work.partner.labels]
    np.testing.assert_allclose(union.labels[30:], expected, rtol=1e-6)
    np.testing.assert_allclose(union.labels.sum(1), 1, rtol=1e-6)
    (plain,) = phase_images(Phase(on="real+partner"), work.real, work.partner, taught)
    assert plain.labels.dtype == np.int64

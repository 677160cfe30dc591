"""The phases of an arm: steps, learning rates, batches and images."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.classifiers import coloured, optimization, training
from truelike.training.images import Union
from truelike.training.phases import (
    learning_rate,
    next_positions,
    one_pass,
    phase_images,
    phase_steps,
)
from truelike.training.settings import Phase


def test_learning_rate_by_hand() -> None:
    slow = optimization(lr=0.5, warmup_fraction=0.2)
    rates = [learning_rate(step, 20, 2.0, slow) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert learning_rate(0, 10, 1.0, optimization(lr=2.0, warmup_fraction=0.0)) == 2.0
    assert learning_rate(9, 10, 1.0, optimization(lr=1.0, warmup_fraction=1.0)) == 1.0
    stepped = optimization(lr=0.1, warmup_fraction=0.0, schedule="steps")
    rates = [learning_rate(step, 200, 1.0, stepped) for step in (0, 49, 50, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    stepped = optimization(lr=1.0, warmup_fraction=0.25, schedule="steps")
    assert [learning_rate(step, 8, 1.0, stepped) for step in range(4)] == [0.5, 1.0, 0.2, 0.2]
    from_above_zero = optimization(lr=1.0, warmup_fraction=0.5, warmup_lr=0.2)
    rates = [learning_rate(step, 8, 1.0, from_above_zero) for step in range(4)]
    assert rates == pytest.approx([0.4, 0.6, 0.8, 1.0])


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
        positions, waiting = next_positions(waiting, partial(rng.permutation, size), batch)
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


def test_a_balanced_pass_sees_every_class_as_often_and_its_images_evenly() -> None:
    labels = np.array([0] * 17 + [1] * 5 + [3] * 1)
    positions = one_pass(labels, "balanced", np.random.default_rng(0))
    assert np.bincount(labels[positions]).tolist() == [17, 17, 0, 17]
    counts = np.bincount(positions, minlength=len(labels))
    assert counts[:17].tolist() == [1] * 17
    assert sorted(counts[17:22]) == [3, 3, 3, 4, 4]
    soft = np.eye(4, dtype=np.float32)[labels] * 0.7 + 0.075
    same = one_pass(soft, "balanced", np.random.default_rng(0))
    np.testing.assert_array_equal(same, positions)
    uniform = one_pass(labels, "uniform", np.random.default_rng(0))
    np.testing.assert_array_equal(uniform, np.random.default_rng(0).permutation(23))

"""The phases of an arm: their steps, images, batches and learning rates."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from truelike.training.images import Images, TrainingSet, Union
from truelike.training.settings import Optimization, Phase

Sampling = Literal["uniform", "balanced"]


def phase_steps(steps: int, shares: Sequence[float]) -> list[int]:
    """Divide the optimizer steps by the phases' shares so that they add up exactly."""
    ends = [round(steps * sum(shares[: count + 1])) for count in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def phase_images(
    phase: Phase,
    real: Images,
    partner: Images,
    taught: np.ndarray | None = None,
) -> list[TrainingSet]:
    """The images of a phase: one set, of which `real+partner` is the plain union, or both sets of a
    joint phase.

    `taught`: the teacher's class probabilities of the partner images (N, K), for a phase with soft
    labels.
    """
    if phase.soft_labels and taught is not None:
        hard = np.eye(taught.shape[1], dtype=np.float32)
        soft = phase.soft_labels * taught + (1 - phase.soft_labels) * hard[partner.labels]
        real, partner = replace(real, labels=hard[real.labels]), replace(partner, labels=soft)
    if phase.on != "real+partner":
        return [real if phase.on == "real" else partner]
    return [real, partner] if phase.joint else [Union(real, partner)]


def batch_sizes(phase: Phase, batch_size: int) -> list[int]:
    """How many images of each set a step sees; a joint phase's step sees half a batch of each."""
    half = batch_size // 2
    return [half, batch_size - half] if phase.joint else [batch_size]


def one_pass(labels: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> np.ndarray:
    """Positions of one pass over images in a random order, int64.

    ``uniform``: every image once. ``balanced``: as many of every class as the largest class has,
    each image of a class as often as its others, give or take one. `labels`: int64 (N,), or
    probabilities (N, K), whose most probable class counts.
    """
    if sampling == "uniform":
        return rng.permutation(len(labels))
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    present, counts = np.unique(classes, return_counts=True)
    drawn = []
    for label in present:
        own = np.flatnonzero(classes == label)
        times = -(-counts.max() // len(own))
        drawn += [np.concatenate([rng.permutation(own) for _ in range(times)])[: counts.max()]]
    return rng.permutation(np.concatenate(drawn))


def next_positions(
    waiting: np.ndarray, draw_pass: Callable[[], np.ndarray], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the next batch, and those of the begun pass that wait for the batches after it.

    A batch may end one pass and begin another, so it is always full.
    """
    while len(waiting) < batch_size:
        waiting = np.concatenate([waiting, draw_pass()])
    return waiting[:batch_size], waiting[batch_size:]


def streamed_positions(
    labels: np.ndarray, sampling: Sampling, seed: Sequence[int], batch_size: int, steps: range
) -> Iterator[np.ndarray]:
    """Positions of the batches of some steps, each a function of its step and the seed alone."""
    length = len(one_pass(labels, sampling, np.random.default_rng(0)))
    number, begun = divmod(steps.start * batch_size, length)

    def draw_pass() -> np.ndarray:
        nonlocal number
        rng = np.random.default_rng([*seed, number])
        number += 1
        return one_pass(labels, sampling, rng)

    waiting = draw_pass()[begun:]
    for _ in steps:
        positions, waiting = next_positions(waiting, draw_pass, batch_size)
        yield positions


def learning_rate(step: int, steps: int, scale: float, optimization: Optimization) -> float:
    """Linear warm-up from `warmup_lr` to the peak, `scale` times `lr`, then half a cosine to zero,
    or a fifth at 25, 50 and 75 % of the steps (RF, CiP).

    `step` counts from 0 to `steps`, those of the phase.
    """
    peak, start = scale * optimization.lr, optimization.warmup_lr
    warmup = round(optimization.warmup_fraction * steps)
    if step < warmup:
        return start + (peak - start) * (step + 1) / warmup
    if optimization.schedule == "steps":
        return peak * 0.2 ** (4 * step // steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

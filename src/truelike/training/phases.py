"""The phases of an arm: their steps, images, batches and learning rates."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from truelike.training.images import LabelledImages, TrainingSet, Union
from truelike.training.settings import Phase


def phase_steps(steps: int, shares: Sequence[float]) -> list[int]:
    """Divide the optimizer steps by the phases' shares so that they add up exactly."""
    ends = [round(steps * sum(shares[: count + 1])) for count in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def phase_images(
    phase: Phase,
    real: LabelledImages,
    partner: LabelledImages,
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


def next_positions(
    waiting: np.ndarray, size: int, batch_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the next batch, and those of the begun pass that wait for the batches after it.

    Every pass over the `size` images has a new order; a batch may end one pass and begin another,
    so it is always full.
    """
    while len(waiting) < batch_size:
        waiting = np.concatenate([waiting, rng.permutation(size)])
    return waiting[:batch_size], waiting[batch_size:]


def learning_rate(
    step: int, steps: int, peak: float, warmup_fraction: float, schedule: Literal["cosine", "steps"]
) -> float:
    """Linear warm-up to `peak`, then half a cosine to zero, or a fifth at 25, 50 and 75 % of the
    steps (RF, CiP).

    `step` counts from 0.
    """
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "steps":
        return peak * 0.2 ** (4 * step // steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

"""Numbers about samples of images that carry their bootstrap resamples with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from truelike.evaluation.intervals import Interval, percentile_interval

CONFIDENCE = 0.95
# How often each reference image and each other image counts, (B, N) and (B, M).
Resamples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number and what it is in each of B resamples of the images, shape (B,)."""

    value: float
    draws: np.ndarray

    @property
    def interval(self) -> Interval:
        """The 95 % percentile interval."""
        return percentile_interval(self.value, self.draws, CONFIDENCE)


def interval_of(estimate: Estimate | None) -> Interval | None:
    """The 95 % interval of an estimate, None where there is none."""
    return None if estimate is None else estimate.interval


def average(values: np.ndarray, counts: np.ndarray) -> Estimate:
    """The mean of a number per image (N,), with its means over resamples of the images (B, N)."""
    return Estimate(float(values.mean()), counts @ values.astype(np.float64) / counts.sum(1))


def pool(parts: Sequence[Estimate | float | None]) -> Estimate | float | None:
    """The mean of a number over subsamples, None where one has none.

    The resamples of all of them stay, each about its own subsample's value: an interval covers the
    choice of a subsample beside that of the images.
    """
    estimates = [part for part in parts if isinstance(part, Estimate)]
    if len(estimates) == len(parts):
        values = [estimate.value for estimate in estimates]
        return Estimate(
            float(np.mean(values)), np.concatenate([estimate.draws for estimate in estimates])
        )
    numbers = [part for part in parts if isinstance(part, float)]
    return float(np.mean(numbers)) if len(numbers) == len(parts) else None

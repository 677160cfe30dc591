"""Intervals by the bootstrap, over seeds and images or over images by class, and of shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float

    def within(self, low: float, high: float) -> "Interval":
        """The same with ends that lie between `low` and `high`, as those of a share must."""
        return Interval(self.value, max(self.low, low), min(self.high, high))


def bootstrap_means(scores: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of `scores` (seeds, images) when both are drawn anew with replacement: float64 of shape
    (draws,).

    The same seed draws the same seeds and images for every array of that shape, so differences of
    results are paired.
    """
    rng = np.random.default_rng(seed)
    seeds, images = scores.shape
    values = scores.astype(np.float64)
    means = []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)
        image_weights = np.stack(
            [np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(size)]
        )
        means.append(((seed_weights @ values) * image_weights).sum(1) / (seeds * images))
    return np.concatenate(means)


def percentile_interval(value: float, means: np.ndarray, confidence: float) -> Interval:
    """The percentile interval (Efron 1979) of bootstrap means around the estimate `value`."""
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number: max over the smaller ones of (m - rank + 1) p, at most 1
    (Holm 1979).
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def class_resamples(labels: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image is drawn when each class is drawn anew with replacement: float32 of
    shape (draws, N).
    """
    counts = np.empty((draws, len(labels)), np.float32)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        counts[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    return counts


def recentred(value: float, draws: np.ndarray) -> np.ndarray:
    """Bootstrap `draws` of a statistic that resampling shifts, moved so that their mean is its
    estimate `value`.

    Images drawn twice make a sample less varied than it is: distances and diversity move, their
    spread hardly does.
    """
    return draws - draws.mean() + value


def wilson_interval(rate: float, count: float, confidence: float) -> Interval:
    """The score interval of a share of `count` images (Wilson 1927): unlike a bootstrap, no point
    at 0 or 1.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = (
        z / (1 + z**2 / count) * float(np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)))
    )
    return Interval(rate, max(0.0, middle - reach), min(1.0, middle + reach))

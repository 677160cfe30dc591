"""Intervals and p-values by the bootstrap, over training seeds and test images together."""

from dataclasses import dataclass

import numpy as np

CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its percentile interval."""

    value: float
    low: float
    high: float


def bootstrap_means(scores: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of `scores` (seeds, images) when both are drawn anew with replacement: float64 of shape (draws,).

    The same seed draws the same seeds and images for every array of that shape, so differences of results are paired.
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


def two_sided_p_value(differences: np.ndarray) -> float:
    """Twice the smaller tail beyond zero of bootstrap differences, (count + 1) / (draws + 1), at most 1."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))

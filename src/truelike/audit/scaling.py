"""Scaling: learning curves of a linear probe on each set of images, power laws fitted to them, and
how many real images a set is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from truelike.audit.estimates import CONFIDENCE
from truelike.audit.probes import few_shot_hits
from truelike.audit.samples import Features
from truelike.evaluation.intervals import Interval, bootstrap_means, percentile_interval

FEWEST_SIZES = 3
LOWEST, HIGHEST = (1e-6, 1e-2, 0.0), (1000.0, 5.0, 100.0)  # scale, exponent, floor
NEAR = 1e-3  # of a bound, relative
FLAT = 0.1  # percent of accuracy in the whole curve
REPEATS = 5
MOST_IMAGES = 20_000  # that a probe is fitted on
FARTHEST = 4  # times as many real images as there are


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = scale * n^-exponent + floor, in percent (Hestness et al. 2017, arXiv
    1712.00409).
    """

    scale: float
    exponent: float
    floor: float

    def accuracy(self, sizes: np.ndarray) -> np.ndarray:
        """Accuracy in percent at `sizes` images per class."""
        return 100 - self.scale * sizes.astype(float) ** -self.exponent - self.floor

    @property
    def at_bounds(self) -> bool:
        """Whether a fit ended at a bound of scale or exponent, or found no curve at all: the
        accuracies do not determine it.
        """
        steep = LOWEST[1] * (1 + NEAR) < self.exponent < HIGHEST[1] * (1 - NEAR)
        return not (steep and FLAT < self.scale < HIGHEST[0] * (1 - NEAR))

    def size(self, accuracy: float) -> float:
        """The images per class that reach `accuracy` (percent); infinite where the curve never
        does.
        """
        above = 100 - accuracy - self.floor
        return float((self.scale / above) ** (1 / self.exponent)) if above > 0 else np.inf


def fit_power_law(sizes: np.ndarray, accuracies: np.ndarray) -> PowerLaw:
    """Fit a power law with scale, exponent and floor of 0 or more to accuracies (percent) by least
    squares.

    At least FEWEST_SIZES of them.
    """
    errors = 100 - accuracies
    start = (max(errors[0] - errors.min() / 2, 1.0), 0.5, errors.min() / 2)
    fitted = least_squares(
        lambda x: x[0] * sizes ** -x[1] + x[2] - errors,
        start,
        bounds=(LOWEST, HIGHEST),
    )
    return PowerLaw(*map(float, fitted.x))


def real_equivalent(
    curve: PowerLaw,
    curves: Sequence[PowerLaw],
    accuracy: float,
    draws: np.ndarray,
    farthest: float,
    confidence: float,
) -> Interval:
    """How many real images per class reach `accuracy` (percent) on the learning curve of real
    images (ours).

    `curves` are that curve refitted to B resamples, `draws` (B,) the accuracies in the same ones,
    for the percentile interval. Values end at `farthest`: no curve is trusted beyond, so read it as
    "at least".
    """
    sizes = np.array(
        [min(law.size(draw), farthest) for law, draw in zip(curves, draws, strict=True)]
    )
    return percentile_interval(min(curve.size(accuracy), farthest), sizes, confidence)


def curve_sizes(labels: np.ndarray) -> list[int]:
    """1, 2, 4, ... images per class, up to what the smallest class has or a probe should be fitted
    on.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    most = min(int(counts.min()), max(1, MOST_IMAGES // len(counts)))
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*sizes, most]


def learning_curves(
    train: Features, sets: Mapping[str, Features], held_out: str, bootstrap: int, seed: int
) -> tuple[pd.DataFrame, dict[str, Interval | None]]:
    """Accuracy on the `held_out` set of probes fitted on real training images and on each other
    set, by their number.

    Returns rows of set, images_per_class, accuracy, low, high (percent; `real` are the training
    images), and for each other set all of whose images are used the number of real images per class
    that give its accuracy.
    """
    test = sets[held_out].values, sets[held_out].labels
    rows, worth = [], {}
    real_sizes = np.array(curve_sizes(train.labels))
    others = {
        name: features
        for name, features in sets.items()
        if name != held_out and len(np.unique(features.labels)) > 1
    }
    training = {held_out: train} | others
    means, draws = {}, {}
    for name, features in training.items():
        sizes = curve_sizes(features.labels)
        hits = few_shot_hits((features.values, features.labels), test, sizes, REPEATS, seed)
        means[name] = hits.mean((1, 2))
        draws[name] = np.stack([bootstrap_means(row, bootstrap, seed) for row in hits], axis=1)
        for size, mean, resampled in zip(sizes, means[name], draws[name].T, strict=True):
            interval = percentile_interval(float(mean), resampled, CONFIDENCE)
            rows.append((name, size, interval.value, interval.low, interval.high))
    enough = len(real_sizes) >= FEWEST_SIZES
    if enough:
        curve = fit_power_law(real_sizes, means[held_out])
        curves = [fit_power_law(real_sizes, row) for row in draws[held_out]]
    for name in others:
        top, tops = float(means[name][-1]), draws[name][:, -1]
        farthest = FARTHEST * float(real_sizes[-1])
        worth[name] = (
            real_equivalent(curve, curves, top, tops, farthest, CONFIDENCE) if enough else None
        )
    return pd.DataFrame(rows, columns=["set", "images_per_class", "accuracy", "low", "high"]), worth

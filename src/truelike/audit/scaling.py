"""Learning curves, and how many real images a synthetic set is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from truelike.evaluation.intervals import Interval, percentile_interval

FEWEST_SIZES = 3


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
        bounds=([1e-6, 1e-2, 0.0], [1000.0, 5.0, 100.0]),
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
        [min(own.size(reached), farthest) for own, reached in zip(curves, draws, strict=True)]
    )
    return percentile_interval(min(curve.size(accuracy), farthest), sizes, confidence)

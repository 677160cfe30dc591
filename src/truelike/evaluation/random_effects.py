"""The mean of scores by training seed and test image, with both as random effects.

Scores of S seeds and N images form a crossed two-way layout with one value per cell. The variance
of their mean is estimated from the mean squares of seeds, images and residual, its degrees of
freedom by Satterthwaite (Biometrics 1946), so that intervals hold for few seeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from truelike.evaluation.intervals import Interval

POWER = 0.8


@dataclass(frozen=True)
class Mean:
    """An estimated mean with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: float

    def interval(self, confidence: float) -> Interval:
        """The t interval; both ends are `value` where the standard error is 0."""
        reach = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return Interval(self.value, self.value - reach, self.value + reach)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the t test against 0."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    def detectable(self, confidence: float) -> float:
        """The true mean that a two-sided test at 1 - `confidence` finds with a power of 80 %."""
        quantiles = stats.t.ppf([(1 + confidence) / 2, POWER], self.freedom)
        return float(quantiles.sum()) * self.error


def crossed_mean(scores: np.ndarray) -> Mean:
    """The mean of `scores` (seeds, images) over both; of one seed, over images alone.

    Var = (MS_seeds + MS_images - MS_residual) / (S N). For paired differences of two arms, give the
    difference of their scores. Where the sum is below the larger of the two mean squares, which
    chance alone can make it, that one counts: the interval is never too short for it.
    """
    values = scores.astype(np.float64)
    seeds, images = values.shape
    value = float(values.mean())
    by_image = seeds * values.mean(0).var(ddof=1) if images > 1 else 0.0
    if seeds == 1:
        return Mean(value, float(np.sqrt(by_image / images)), max(images - 1, 1))
    by_seed = images * values.mean(1).var(ddof=1)
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + value
    cells = (seeds - 1) * max(images - 1, 1)
    residual = float((rest**2).sum()) / cells
    squares = by_seed + by_image - residual
    if squares < max(by_seed, by_image):
        squares, freedom = max((by_seed, seeds - 1), (by_image, max(images - 1, 1)))
    else:
        terms = by_seed**2 / (seeds - 1) + by_image**2 / max(images - 1, 1) + residual**2 / cells
        freedom = squares**2 / terms if terms else seeds - 1
    return Mean(value, float(np.sqrt(squares / (seeds * images))), float(freedom))

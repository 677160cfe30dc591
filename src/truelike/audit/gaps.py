"""The gaps: by how much synthetic images are farther from the real training images than new real
images are, each seen through one measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from truelike.audit.estimates import Estimate, interval_of
from truelike.evaluation.intervals import Interval


@dataclass(frozen=True)
class Gap:
    """A gap: the measure behind it, whether more of that is better (-1) or worse (1), and how it
    is shown: a title, its meaning, digits, and the factor of the unit.
    """

    measure: str
    sign: Literal[-1, 1]
    title: str
    meaning: str
    digits: int
    factor: int


GAPS = {
    "content": Gap(
        "coverage",
        -1,
        "content",
        "share of real images that new real images cover and these do not, points",
        1,
        100,
    ),
    "appearance": Gap(
        "low_level_difference",
        1,
        "appearance",
        "low-level difference beyond that of new real images, standard deviations",
        2,
        1,
    ),
    "label": Gap(
        "label_error",
        1,
        "label",
        "images that are another class to a probe of the real ones, beyond new real ones, points",
        1,
        100,
    ),
    "two_sample": Gap(
        "two_sample",
        1,
        "all together",
        "C2ST accuracy against the training images, beyond that of new real ones, points",
        1,
        100,
    ),
}


def gap_intervals(
    estimates: Mapping[str, Mapping[str, Estimate | None]], held_out: str
) -> dict[str, dict[str, Interval | None]]:
    """Every gap of every set but the held-out real images, by gap and set; more is worse.

    `estimates` by set and measure. None where the measure is missing.
    """
    return {
        name: {
            kind: interval_of(_difference(measures, estimates[held_out], gap))
            for kind, measures in estimates.items()
            if kind != held_out
        }
        for name, gap in GAPS.items()
    }


def _difference(
    measures: Mapping[str, Estimate | None], baseline: Mapping[str, Estimate | None], gap: Gap
) -> Estimate | None:
    estimate, reference = measures[gap.measure], baseline[gap.measure]
    if estimate is None or reference is None:
        return None
    return Estimate(
        gap.sign * (estimate.value - reference.value), gap.sign * (estimate.draws - reference.draws)
    )

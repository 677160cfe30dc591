"""Pools experiments that differ in the draw of the data alone: what holds beyond one draw."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from truelike.evaluation.intervals import Interval
from truelike.evaluation.verdict import REFERENCE

DRAW = "data.seed"


class Drawn(Protocol):
    """A run of one draw: its name, its settings, flat, and metrics/accuracy.json."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, str]: ...

    @property
    def accuracy(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Gain:
    """An arm's difference to `real` in percentage points: the mean over draws with its t interval,
    and the difference in each draw.
    """

    mean: Interval
    points: tuple[float, ...]


@dataclass(frozen=True)
class Pool:
    """Runs that differ in ``data.seed`` alone: their names and seeds, and every arm's gain."""

    names: tuple[str, ...]
    seeds: tuple[str, ...]
    confidence: float
    gains: Mapping[str, Gain]


def pool_draws(runs: Sequence[Drawn]) -> list[Pool]:
    """Pool the runs that differ in ``data.seed`` alone, two draws or more; a draw that is there
    twice counts once. Arms that not all runs of a pool have are left out.
    """
    groups: dict[str, dict[str, Drawn]] = {}
    for run in runs:
        others = {name: value for name, value in run.settings.items() if name != DRAW}
        draws = groups.setdefault(json.dumps(others, sort_keys=True), {})
        draws.setdefault(run.settings.get(DRAW, ""), run)
    return [_pool(draws) for draws in groups.values() if len(draws) > 1]


def _pool(draws: Mapping[str, Drawn]) -> Pool:
    runs = list(draws.values())
    confidence = float(runs[0].settings.get("evaluate.confidence", 0.95))
    gains = {}
    for arm in runs[0].accuracy["difference_to_real"]:
        rows = [run.accuracy["difference_to_real"].get(arm) for run in runs]
        if arm != REFERENCE and all(rows):
            points = tuple(float(row["points"]) for row in rows)
            gains[arm] = Gain(t_interval(points, confidence), points)
    return Pool(tuple(run.name for run in runs), tuple(draws), confidence, gains)


def t_interval(values: Sequence[float], confidence: float) -> Interval:
    """The mean of two values or more with its t interval (Student 1908), n - 1 degrees of
    freedom.
    """
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)

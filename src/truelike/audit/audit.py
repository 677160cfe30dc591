"""Audits synthetic sets against the real training images, with held-out real images as the
baseline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from truelike.audit.estimates import CONFIDENCE, interval_of
from truelike.audit.gaps import gap_intervals
from truelike.audit.measures import class_measures, set_measures
from truelike.audit.memorisation import (
    authentic,
    clustered_interval,
    copy_threshold,
    near_copy_table,
)
from truelike.audit.samples import Features, class_sample
from truelike.audit.scaling import learning_curves
from truelike.evaluation.intervals import Interval, class_resamples
from truelike.features.neighbours import nearest

HELD_OUT = "real"
ClassRow = tuple[str, str, str, Interval | float | None]  # set, class name, measure, its number


@dataclass(frozen=True)
class Findings:
    """`measures`: by set and name. `gaps`: by kind and set, differences to the held-out real
    images.

    Tables: `per_class`; `near_copies`, the worst copies first; `curves`, accuracies of probes by
    images per class.
    """

    measures: dict[str, dict[str, Interval | None]]
    gaps: dict[str, dict[str, Interval | None]]
    per_class: pd.DataFrame
    near_copies: pd.DataFrame
    curves: pd.DataFrame

    def numbers(self) -> dict[str, Any]:
        """Measures and gaps as plain numbers of five digits: the content of metrics/audit.json."""
        return {"measures": _plain(self.measures), "gaps": _plain(self.gaps)}


def _plain(table: Mapping[str, Mapping[str, Interval | None]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: _digits(interval) for key, interval in row.items()}
        for name, row in table.items()
    }


def _digits(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {name: float(f"{value:.5g}") for name, value in asdict(interval).items()}


def audit(
    train: Features,
    train_views: np.ndarray,
    sets: Mapping[str, Features],
    class_names: list[str],
    neighbours: int,
    bootstrap: int,
    seed: int,
) -> Findings:
    """Compare each set with the training images; `sets` holds the held-out real images under the
    name `real`.

    Distances and coverage depend on the sample's size, so all are taken at one size: as many images
    per class as the smallest set (or the training set) has, drawn by `seed`. Near-copies are looked
    for in all images, and in all views of the training images: `train_views` (V * N, D) are the
    features of V views, of all images each.
    """
    counts = np.min(
        [np.bincount(s.labels, minlength=len(class_names)) for s in (train, *sets.values())], axis=0
    )
    rng = np.random.default_rng(seed)
    reference = class_sample(train, counts, rng)
    samples = {name: class_sample(features, counts, rng) for name, features in sets.items()}
    reference_resamples = class_resamples(reference.labels, bootstrap, rng)
    copies = {name: nearest(features.values, train_views) for name, features in sets.items()}
    threshold = copy_threshold(copies[HELD_OUT][1])
    estimates = {}
    rows: list[ClassRow] = []
    for name, features in sets.items():
        sample = samples[name]
        resamples = reference_resamples, class_resamples(sample.labels, bootstrap, rng)
        estimates[name] = set_measures(reference, sample, features, neighbours, resamples, rng)
        by_class = class_measures(reference, sample, class_names, neighbours, resamples, seed)
        rows += [(name, *row) for row in by_class]
        is_copy = copies[name][1] > threshold
        rows += [(name, *row) for row in _class_copies(is_copy, features, class_names)]
    measures = {
        name: {key: interval_of(estimate) for key, estimate in row.items()}
        for name, row in estimates.items()
    }
    for name, features in sets.items():
        shares = {
            "near_copy_rate": copies[name][1] > threshold,
            "authentic": authentic(features.values, train.values),
        }
        for measure, hits in shares.items():
            measures[name][measure] = clustered_interval(hits, features.sources, CONFIDENCE)
    curves, worth = learning_curves(train, sets, HELD_OUT, bootstrap, seed)
    for name, interval in worth.items():
        measures[name]["real_equivalent"] = interval
    gaps = gap_intervals(estimates, HELD_OUT)
    return Findings(
        measures, gaps, _class_table(rows), near_copy_table(train.keys, sets, copies), curves
    )


def _class_copies(
    is_copy: np.ndarray, features: Features, class_names: list[str]
) -> Iterator[tuple[str, str, Interval | float | None]]:
    """(class name, measure, its number): the near-copy rate and the number of images of each
    class.
    """
    for label, class_name in enumerate(class_names):
        rows = np.flatnonzero(features.labels == label)
        rate = None
        if len(rows):
            sources = [features.sources[row] for row in rows]
            rate = clustered_interval(is_copy[rows], sources, CONFIDENCE)
        yield class_name, "near_copy_rate", rate
        yield class_name, "images", len(rows)


def _class_table(rows: list[ClassRow]) -> pd.DataFrame:
    """Rows of set, class_name, metric, value, low and high; a plain number has no low and high."""
    flat = [
        (*names, number.value, number.low, number.high)
        if isinstance(number, Interval)
        else (*names, number, None, None)
        for *names, number in rows
    ]
    table = pd.DataFrame(flat, columns=["set", "class_name", "metric", "value", "low", "high"])
    return table.astype({"value": float, "low": float, "high": float})

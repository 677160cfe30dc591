"""Audits synthetic sets against the real training images, with held-out real images as the
baseline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from truelike.audit.estimates import CONFIDENCE, Estimate, interval_of, pool
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
SUBSAMPLES = 8  # from one of 160 images to the next, coverage differs by 0.04 in the demo
ClassRow = tuple[str, str, str, Interval | float | None]  # set, class name, measure, its number
# By set, class name ("" for all classes) and measure.
Measures = dict[tuple[str, str, str], Estimate | float | None]


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
    per class as the smallest set (or the training set) has, drawn by `seed`, and averaged over
    `SUBSAMPLES` draws. Near-copies are looked for in all images, and in all views of the training
    images: `train_views` (V * N, D) are the features of V views, of all images each.
    """
    rng = np.random.default_rng(seed)
    resamples = -(-bootstrap // SUBSAMPLES)
    parts = [
        _measure_subsample(train, sets, class_names, neighbours, resamples, rng)
        for _ in range(SUBSAMPLES)
    ]
    pooled = {key: pool([part[key] for part in parts]) for key in parts[0]}
    estimates: dict[str, dict[str, Estimate | None]] = {name: {} for name in sets}
    rows: list[ClassRow] = []
    for (name, class_name, measure), number in pooled.items():
        if class_name:
            interval = number.interval if isinstance(number, Estimate) else number
            rows.append((name, class_name, measure, interval))
        else:
            estimates[name][measure] = number if isinstance(number, Estimate) else None
    measures = {
        name: {key: interval_of(estimate) for key, estimate in row.items()}
        for name, row in estimates.items()
    }
    copies = {name: nearest(features.values, train_views) for name, features in sets.items()}
    threshold = copy_threshold(copies[HELD_OUT][1])
    for name, features in sets.items():
        shares = {
            "near_copy_rate": copies[name][1] > threshold,
            "authentic": authentic(features.values, train.values),
        }
        for measure, hits in shares.items():
            measures[name][measure] = clustered_interval(hits, features.sources, CONFIDENCE)
        rows += [
            (name, *row) for row in _class_copies(shares["near_copy_rate"], features, class_names)
        ]
    curves, worth = learning_curves(train, sets, HELD_OUT, bootstrap, seed)
    for name, interval in worth.items():
        measures[name]["real_equivalent"] = interval
    gaps = gap_intervals(estimates, HELD_OUT)
    return Findings(
        measures, gaps, _class_table(rows), near_copy_table(train.keys, sets, copies), curves
    )


def _measure_subsample(
    train: Features,
    sets: Mapping[str, Features],
    class_names: list[str],
    neighbours: int,
    bootstrap: int,
    rng: np.random.Generator,
) -> Measures:
    """Measure a sample of every set against a sample of the training images, all of one size."""
    counts = np.min(
        [np.bincount(s.labels, minlength=len(class_names)) for s in (train, *sets.values())], axis=0
    )
    reference = class_sample(train, counts, rng)
    samples = {name: class_sample(features, counts, rng) for name, features in sets.items()}
    reference_resamples = class_resamples(reference.labels, bootstrap, rng)
    measures: Measures = {}
    for name, features in sets.items():
        sample, seed = samples[name], int(rng.integers(2**31))
        resamples = reference_resamples, class_resamples(sample.labels, bootstrap, rng)
        whole = set_measures(reference, sample, features, neighbours, resamples, rng)
        measures |= {(name, "", measure): estimate for measure, estimate in whole.items()}
        for class_name, measure, number in class_measures(
            reference, sample, class_names, neighbours, resamples, seed
        ):
            measures[name, class_name, measure] = number
    return measures


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

"""Audits synthetic sets against the real training images, with held-out real images as the
yardstick.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from truelike.audit.compare import (
    CONFIDENCE,
    Features,
    Measure,
    class_measures,
    compare,
    to_interval,
)
from truelike.audit.curves import learning_curves
from truelike.audit.memorisation import authentic, copy_threshold, near_copy_rate
from truelike.evaluation.intervals import Interval, class_resamples, wilson_interval
from truelike.features.neighbours import nearest

HELD_OUT = "real"
GAPS = {
    "content": "coverage",
    "appearance": "low_level_difference",
    "label": "label_error",
    "two_sample": "two_sample",
}


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
        return {
            "measures": {
                name: {m: _numbers(i) for m, i in own.items()}
                for name, own in self.measures.items()
            },
            "gaps": {
                gap: {name: _numbers(i) for name, i in own.items()}
                for gap, own in self.gaps.items()
            },
        }


def _numbers(interval: Interval | None) -> dict[str, float] | None:
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
    per class as the smallest set (or the training set) has, drawn by `seed`. Near copies are looked
    for in all images, and in all guises of the training images: `train_views` (V * N, D) are the
    features of V views, of all images each.
    """
    counts = np.min(
        [np.bincount(s.labels, minlength=len(class_names)) for s in (train, *sets.values())], axis=0
    )
    rng = np.random.default_rng(seed)
    reference = _sample(train, counts, rng)
    samples = {name: _sample(features, counts, rng) for name, features in sets.items()}
    drawn = class_resamples(reference.labels, bootstrap, rng)
    found, rows = {}, []
    copies = {name: nearest(features.values, train_views) for name, features in sets.items()}
    threshold = copy_threshold(copies[HELD_OUT][1])
    for name, features in sets.items():
        sample = samples[name]
        resamples = drawn, class_resamples(sample.labels, bootstrap, rng)
        found[name] = compare(reference, sample, features, neighbours, resamples, rng)
        rows += [
            (name, *row)
            for row in class_measures(reference, sample, class_names, neighbours, resamples, seed)
        ]
        for label, class_name in enumerate(class_names):
            own = copies[name][1][features.labels == label] > threshold
            rate = wilson_interval(float(own.mean()), len(own), CONFIDENCE) if len(own) else None
            rows += [
                (name, class_name, "near_copy_rate", rate),
                (name, class_name, "images", len(own)),
            ]
    measures = {
        name: {m: to_interval(value) for m, value in values.items()}
        for name, values in found.items()
    }
    for name, features in sets.items():
        similarity = copies[name][1]
        share = near_copy_rate(similarity, threshold)
        genuine = float(authentic(features.values, train.values).mean())
        measures[name]["near_copy_rate"] = wilson_interval(share, len(similarity), CONFIDENCE)
        measures[name]["authentic"] = wilson_interval(genuine, len(similarity), CONFIDENCE)
    curves, worth = learning_curves(train, sets, HELD_OUT, bootstrap, seed)
    for name, interval in worth.items():
        measures[name]["real_equivalent"] = interval
    return Findings(
        measures, _gaps(found), _per_class(rows), _near_copies(train, sets, copies), curves
    )


def _sample(features: Features, counts: np.ndarray, rng: np.random.Generator) -> Features:
    """`counts[c]` images of each class c, drawn without replacement."""
    drawn = [
        rng.choice(np.flatnonzero(features.labels == label), count, replace=False)
        for label, count in enumerate(counts)
    ]
    return features.take(np.sort(np.concatenate(drawn)))


def _gaps(
    found: Mapping[str, Mapping[str, Measure | None]],
) -> dict[str, dict[str, Interval | None]]:
    """By how much each set is farther from the training images than held-out real images are; more
    is worse.
    """
    gaps: dict[str, dict[str, Interval | None]] = {}
    for gap, name in GAPS.items():
        sign = -1 if name == "coverage" else 1
        gaps[gap] = {}
        for kind, measures in found.items():
            own, yardstick = measures[name], found[HELD_OUT][name]
            if kind != HELD_OUT:
                gaps[gap][kind] = None
                if own is not None and yardstick is not None:
                    draws = sign * (own.draws - yardstick.draws)
                    gaps[gap][kind] = to_interval(
                        Measure(sign * (own.value - yardstick.value), draws)
                    )
    return gaps


def _per_class(rows: list[tuple]) -> pd.DataFrame:
    """Rows of set, class_name, metric, and an interval, a number or None, as a table of value, low
    and high.
    """
    flat = [
        (
            *row[:3],
            *(
                (row[3].value, row[3].low, row[3].high)
                if isinstance(row[3], Interval)
                else (row[3], None, None)
            ),
        )
        for row in rows
    ]
    table = pd.DataFrame(flat, columns=["set", "class_name", "metric", "value", "low", "high"])
    return table.astype({"value": float, "low": float, "high": float})


def _near_copies(
    train: Features,
    sets: Mapping[str, Features],
    copies: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> pd.DataFrame:
    keys = np.array(train.keys)
    tables = [
        pd.DataFrame(
            {
                "set": name,
                "key": features.keys,
                "nearest_key": keys[copies[name][0] % len(keys)],
                "similarity": copies[name][1],
            }
        )
        for name, features in sets.items()
    ]
    worst = pd.concat(tables).sort_values(
        ["similarity", "set", "key"], ascending=[False, True, True]
    )
    return worst.reset_index(drop=True)

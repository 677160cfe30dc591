"""Audits synthetic sets against the real training images, with held-out real images as the yardstick."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from truelike.metrics.fidelity import frechet_distance, kernel_distance, manifold_metrics
from truelike.metrics.memorisation import copy_threshold, near_copy_rate, nearest

HELD_OUT = "real"


@dataclass(frozen=True)
class Features:
    """Encoder features (N, D) of some images, with their keys and labels."""

    keys: list[str]
    labels: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Findings:
    """`metrics`: numbers by set. `per_class`, `near_copies`: tables, the worst copies first."""

    metrics: dict[str, dict[str, float | None]]
    per_class: pd.DataFrame
    near_copies: pd.DataFrame


def audit(
    train: Features, sets: Mapping[str, Features], class_names: list[str], neighbours: int, bootstrap: int, seed: int
) -> Findings:
    """Compare each set with the training images; `sets` holds the held-out real images under the name `real`.

    Distances and coverage depend on the sample's size, so all are taken at one size: as many images per class as the
    smallest set (or the training set) has, drawn by `seed`. Near copies are looked for in all images.
    """
    counts = np.min([np.bincount(s.labels, minlength=len(class_names)) for s in (train, *sets.values())], axis=0)
    rng = np.random.default_rng(seed)
    reference = _sample(train, counts, rng)
    copies = {name: nearest(features.values, train.values) for name, features in sets.items()}
    threshold = copy_threshold(copies[HELD_OUT][1])
    metrics, rows, pairs = {}, [], []
    for name, features in sets.items():
        positions, similarity = copies[name]
        sample = _sample(features, counts, rng)
        metrics[name] = _compare(reference, sample, neighbours, bootstrap, rng) | {
            "near_copy_rate": round(near_copy_rate(similarity, threshold), 4)
        }
        for label, class_name in enumerate(class_names):
            found = _class_metrics(reference, sample, label, neighbours) | {
                "near_copy_rate": near_copy_rate(similarity[features.labels == label], threshold)
                if (features.labels == label).any()
                else np.nan,
                "images": float((features.labels == label).sum()),
            }
            rows += [(name, class_name, metric, value) for metric, value in found.items()]
        nearest_keys = np.array(train.keys)[positions]
        pairs.append(pd.DataFrame({"key": features.keys, "nearest_key": nearest_keys, "similarity": similarity}))
        pairs[-1].insert(0, "set", name)
    near_copies = pd.concat(pairs).sort_values(["similarity", "set", "key"], ascending=[False, True, True])
    per_class = pd.DataFrame(rows, columns=["set", "class_name", "metric", "value"])
    return Findings(metrics, per_class, near_copies.reset_index(drop=True))


def _sample(features: Features, counts: np.ndarray, rng: np.random.Generator) -> Features:
    """`counts[c]` images of each class c, drawn without replacement."""
    chosen = np.sort(
        np.concatenate(
            [
                rng.choice(np.flatnonzero(features.labels == label), count, replace=False)
                for label, count in enumerate(counts)
            ]
        )
    )
    return Features([features.keys[i] for i in chosen], features.labels[chosen], features.values[chosen])


def _compare(
    reference: Features, sample: Features, neighbours: int, bootstrap: int, rng: np.random.Generator
) -> dict[str, float | None]:
    names = ("frechet", "kernel", "precision", "recall", "density", "coverage", "coverage_low", "coverage_high")
    if len(reference.keys) <= neighbours:
        return dict.fromkeys(names)
    values, covered = manifold_metrics(reference.values, sample.values, neighbours)
    # The interval is over the real images: drawing the synthetic ones anew would repeat some and so lower coverage.
    drawn = covered[rng.integers(len(covered), size=(bootstrap, len(covered)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    distances = {
        "frechet": frechet_distance(reference.values, sample.values),
        "kernel": kernel_distance(reference.values, sample.values),
    }
    found = distances | values | {"coverage_low": float(low), "coverage_high": float(high)}
    return {name: float(f"{found[name]:.5g}") for name in names}


def _class_metrics(reference: Features, sample: Features, label: int, neighbours: int) -> dict[str, float]:
    """Manifold metrics within one class; NaN where it has too few images for a neighbourhood."""
    real, fake = (features.values[features.labels == label] for features in (reference, sample))
    if len(real) <= neighbours:
        return dict.fromkeys(("precision", "recall", "density", "coverage"), np.nan)
    return manifold_metrics(real, fake, neighbours)[0]

"""Accuracy on out-of-distribution sets and corrupted images, and the mean corruption error."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from truelike.evaluation.intervals import Interval, bootstrap_means, percentile_interval
from truelike.evaluation.random_effects import crossed_mean
from truelike.evaluation.settings import Evaluate
from truelike.evaluation.verdict import REFERENCE, Predictions, hits
from truelike.sources.settings import OodSet

COLUMNS = ["arm", "set", "severity", "value", "low", "high"]


def masked(predictions: Predictions, classes: Sequence[int] | None) -> Predictions:
    """Predictions among `classes` alone (None: those that have images), as if the other logits were
    -inf.

    The set-up of ImageNet-A and -R (Hendrycks et al., CVPR 2021 and ICCV 2021), whose 200 classes
    are scored alone.
    """
    kept = np.unique(predictions.labels) if classes is None else np.asarray(classes)
    probs = np.zeros_like(predictions.probs)
    probs[..., kept] = predictions.probs[..., kept]
    total = probs.sum(-1, keepdims=True)
    return Predictions(
        probs / np.where(total > 0, total, 1),
        predictions.labels,
        predictions.seeds,
        predictions.keys,
    )


def ood_accuracy(
    predicted: Mapping[str, Mapping[str, Predictions]],
    sets: Mapping[str, OodSet],
    class_names: Sequence[str],
    corrupted: pd.DataFrame,
    clean: Mapping[str, Predictions],
    settings: Evaluate,
) -> tuple[pd.DataFrame, dict[str, Interval | None]]:
    """Accuracy (percent) of every arm on each of the `sets`, their logits masked, and on the
    corrupted images.

    `predicted` by set and arm; a set without predictions is left out. Rows of arm, set, severity,
    value, low, high, the intervals over seeds and images; the mean corruption error by arm. The
    rest is as in `corruption_accuracy`.
    """
    rows = []
    for name, ood in sets.items():
        classes = (
            None if ood.classes is None else [list(class_names).index(own) for own in ood.classes]
        )
        for arm, predictions in predicted.get(name, {}).items():
            rows.append((arm, name, None, *_interval(hits(masked(predictions, classes)), settings)))
    errors: dict[str, Interval | None] = {}
    if "corrupted" in predicted:
        more, errors = corruption_accuracy(predicted["corrupted"], clean, corrupted, settings)
        rows += more
    return pd.DataFrame(rows, columns=COLUMNS).astype({"severity": "Int64"}), errors


def corruption_accuracy(
    corrupted: Mapping[str, Predictions],
    clean: Mapping[str, Predictions],
    index: pd.DataFrame,
    settings: Evaluate,
) -> tuple[list[tuple], dict[str, Interval | None]]:
    """Accuracy (percent) of each arm on corrupted images, and its mean corruption error.

    `index` describes the corrupted images (corruption, severity, source_key); `clean` are the test
    images. The rows' `set` is a corruption or ``corrupted``, all of them; their `severity` is
    missing for all five together, and 0 for the same images uncorrupted.

    mCE = 100 mean_c (sum_s E_cs / sum_s E_cs of the arm ``real``), E the error rate (Hendrycks and
    Dietterich, ICLR 2019, section 4.3, whose reference is AlexNet): below 100 is more robust than
    real images alone. None where that arm makes no error in a corruption; resamples in which it
    makes none are left out.
    """
    kinds, severities = index["corruption"].unique(), index["severity"].unique()
    sources = index["source_key"][: len(index) // (len(kinds) * len(severities))].tolist()
    rows: list[tuple] = []
    errors = {}
    for arm, predictions in corrupted.items():
        scored = hits(predictions).reshape(
            len(predictions.seeds), len(kinds), len(severities), len(sources)
        )
        place = {key: position for position, key in enumerate(clean[arm].keys)}
        uncorrupted = hits(clean[arm])[:, [place[key] for key in sources]]
        rows.append((arm, "corrupted", None, *_interval(scored.mean((1, 2)), settings)))
        rows.append((arm, "corrupted", 0, *_interval(uncorrupted, settings)))
        for number, severity in enumerate(severities):
            rows.append(
                (
                    arm,
                    "corrupted",
                    int(severity),
                    *_interval(scored[:, :, number].mean(1), settings),
                )
            )
        by_kind = scored.mean(2).swapaxes(0, 1)  # (kinds, seeds, images)
        rows += [
            (arm, kind, None, *_interval(own, settings))
            for kind, own in zip(kinds, by_kind, strict=True)
        ]
        draws = [bootstrap_means(own, settings.bootstrap, settings.seed) for own in by_kind]
        errors[arm] = 100 - by_kind.mean((1, 2)), 100 - np.stack(draws)
    mean_errors = {
        arm: _mean_corruption_error(errors[arm], errors[REFERENCE], settings) for arm in errors
    }
    return rows, mean_errors


Errors = tuple[
    np.ndarray, np.ndarray
]  # of each corruption (C,), and in each resample (C, B), percent


def _mean_corruption_error(own: Errors, reference: Errors, settings: Evaluate) -> Interval | None:
    if not reference[0].all():
        return None
    defined = reference[1].all(0)
    draws = 100 * (own[1][:, defined] / reference[1][:, defined]).mean(0)
    return percentile_interval(
        float(100 * (own[0] / reference[0]).mean()), draws, settings.confidence
    )


def _interval(scored: np.ndarray, settings: Evaluate) -> tuple[float, float, float]:
    """Mean, low and high of scores (seeds, images)."""
    interval = crossed_mean(scored).interval(settings.confidence).within(0, 100)
    return interval.value, interval.low, interval.high


def summarise_ood(table: pd.DataFrame, errors: Mapping[str, Interval | None]) -> dict[str, Any]:
    """The section `ood` of metrics/accuracy.json, of numbers with their intervals.

    `accuracy` by set and arm, all severities together; `mean_corruption_error` by arm.
    """
    whole = table[table["severity"].isna()]
    return {
        "accuracy": {
            str(name): rows.set_index("arm")[["value", "low", "high"]].round(2).to_dict("index")
            for name, rows in whole.groupby("set", sort=False)
        },
        "mean_corruption_error": {
            arm: {name: round(value, 2) for name, value in asdict(interval).items()}
            if interval
            else None
            for arm, interval in errors.items()
        },
    }

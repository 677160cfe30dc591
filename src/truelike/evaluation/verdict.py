"""From the arms' predictions to the accuracy table, its intervals, and the verdict in a
sentence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from truelike.evaluation.accuracy import confusion_matrix, correct, scores
from truelike.evaluation.intervals import (
    Interval,
    bootstrap_means,
    detectable_effect,
    holm,
    percentile_interval,
    two_sided_p_value,
)
from truelike.evaluation.settings import Evaluate
from truelike.paths import ARMS
from truelike.runtime.errors import TruelikeError
from truelike.training.settings import Arm

REFERENCE = "real"
DIGITS = {"points": 2, "low": 2, "high": 2, "p_value": 4, "p_holm": 4, "detectable": 2}


@dataclass(frozen=True)
class Predictions:
    """One arm's predictions of one split: `probs` (seeds, N, K), `labels` (N,), the seeds, and the
    images' keys.
    """

    probs: np.ndarray
    labels: np.ndarray
    seeds: list[int]
    keys: list[str]


def read_predictions(table: pd.DataFrame, split: str) -> Predictions:
    """Take one split of a predictions table apart; every seed has predicted the same images in the
    same order.
    """
    rows = table[table["split"] == split]
    seeds = rows["seed"].drop_duplicates().tolist()
    first = rows[rows["seed"] == seeds[0]]
    probs = np.stack(rows["probs"].tolist()).reshape(len(seeds), len(first), -1)
    return Predictions(probs, first["label"].to_numpy(dtype=np.int64), seeds, first["key"].tolist())


def accuracy_table(
    arm: str, split: str, predictions: Predictions, class_names: list[str]
) -> pd.DataFrame:
    """The metrics of each seed as rows of arm, seed, split, metric, value."""
    rows = [
        (arm, seed, split, metric, value)
        for seed, probs in zip(predictions.seeds, predictions.probs, strict=True)
        for metric, value in scores(probs, predictions.labels, class_names).items()
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "split", "metric", "value"])


def hits(predictions: Predictions) -> np.ndarray:
    """100 where the most probable class is right, else 0: float64 of shape (seeds, N)."""
    return 100.0 * np.stack([correct(probs, predictions.labels) for probs in predictions.probs])


@dataclass(frozen=True)
class Resampled:
    """An arm's test accuracy in percent and its means over resamples of seeds and test images
    (draws,).
    """

    top1: float
    means: np.ndarray


def resample_arms(test: Mapping[str, Predictions], settings: Evaluate) -> dict[str, Resampled]:
    """Resample every arm alike; raises TruelikeError if the arms were trained on different seeds or
    images.
    """
    for name, predictions in test.items():
        if predictions.seeds != test[REFERENCE].seeds or predictions.keys != test[REFERENCE].keys:
            raise TruelikeError(
                f"{ARMS / name}: its seeds or test images are not those of 'real'; run `dvc repro`"
            )
    scored = {name: hits(predictions) for name, predictions in test.items()}
    return {
        name: Resampled(
            float(values.mean()), bootstrap_means(values, settings.bootstrap, settings.seed)
        )
        for name, values in scored.items()
    }


def compare_arms(
    resampled: Mapping[str, Resampled], pairs: Iterable[tuple[str, str]], confidence: float
) -> pd.DataFrame:
    """Paired comparisons of arms: a row per (arm, against) of points, low, high, p_value, p_holm,
    detectable.

    Percentage points, with intervals at `confidence`. `p_holm` is corrected for the number of
    pairs; `detectable` is the difference that such a test finds with a power of 80 %.
    """
    rows = []
    for arm, against in pairs:
        change = resampled[arm].means - resampled[against].means
        interval = percentile_interval(
            resampled[arm].top1 - resampled[against].top1, change, confidence
        )
        effect = detectable_effect(change, confidence)
        rows.append(
            (
                arm,
                against,
                interval.value,
                interval.low,
                interval.high,
                two_sided_p_value(change),
                effect,
            )
        )
    columns = ["arm", "against", "points", "low", "high", "p_value", "detectable"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_holm", holm(table["p_value"].tolist()))
    return table


def compare_all(resampled: Mapping[str, Resampled], confidence: float) -> pd.DataFrame:
    """`compare_arms` of every two arms, each later one against the earlier ones."""
    return compare_arms(resampled, ((b, a) for a, b in combinations(resampled, 2)), confidence)


def confusion_table(test: Mapping[str, Predictions], class_names: list[str]) -> pd.DataFrame:
    """How often each class is taken for each class, all seeds together: rows of arm, class_name,
    predicted, count.
    """
    tables = []
    for arm, predictions in test.items():
        counts = np.sum(
            [confusion_matrix(probs, predictions.labels) for probs in predictions.probs], axis=0
        )
        table = pd.DataFrame(counts, pd.Index(class_names, name="class_name"), class_names)
        tables.append(
            table.melt(var_name="predicted", value_name="count", ignore_index=False).reset_index()
        )
        tables[-1].insert(0, "arm", arm)
    return pd.concat(tables, ignore_index=True)


def summarise(
    validation: Mapping[str, Predictions],
    resampled: Mapping[str, Resampled],
    arms: Mapping[str, Arm],
    settings: Evaluate,
    images: int,
) -> dict[str, Any]:
    """The content of metrics/accuracy.json: every arm's accuracy, its difference to the arm `real`,
    and the verdict.

    Percent and percentage points. The verdict's arm is the best one on validation among those whose
    partner is the synthetic set; its numbers are of `images` test images.
    """
    on_validation = {
        name: float(hits(predictions).mean()) for name, predictions in validation.items()
    }
    accuracy = {
        name: percentile_interval(arm.top1, arm.means, settings.confidence)
        for name, arm in resampled.items()
    }
    pairs = [(name, REFERENCE) for name in resampled if name != REFERENCE]
    table = (
        compare_arms(resampled, pairs, settings.confidence).set_index("arm").drop(columns="against")
    )
    return {
        "accuracy": {
            name: _rounded(interval, "top1") | {"validation": round(on_validation[name], 2)}
            for name, interval in accuracy.items()
        },
        "difference_to_real": table.round(DIGITS).to_dict("index"),
        "verdict": _verdict(
            arms,
            on_validation,
            table,
            settings.confidence,
            len(validation[REFERENCE].seeds),
            images,
        ),
    }


def _rounded(interval: Interval, name: str) -> dict[str, float]:
    return {
        name: round(interval.value, 2),
        "low": round(interval.low, 2),
        "high": round(interval.high, 2),
    }


def _verdict(
    arms: Mapping[str, Arm],
    validation: Mapping[str, float],
    differences: pd.DataFrame,
    confidence: float,
    seeds: int,
    images: int,
) -> dict[str, Any]:
    candidates = [
        name
        for name, arm in arms.items()
        if arm.partner == "synthetic" and name in differences.index
    ]
    if not candidates:
        sentence = "No verdict: no arm of train.arms has the synthetic set as its partner."
        return {"arm": None, "points": None, "low": None, "high": None, "sentence": sentence}
    arm = max(candidates, key=lambda name: validation[name])
    row = differences.to_dict("index")[arm]
    interval = Interval(float(row["points"]), float(row["low"]), float(row["high"]))
    sentence = verdict_sentence(arm, interval, float(row["detectable"]), confidence, seeds, images)
    return {"arm": arm} | _rounded(interval, "points") | {"sentence": sentence}


def verdict_sentence(
    arm: str, difference: Interval, detectable: float, confidence: float, seeds: int, images: int
) -> str:
    """Say whether synthetic data helped, by the interval of the arm's difference to real data alone
    (points).
    """
    basis = (
        f"{100 * confidence:g} % interval, {_count(seeds, 'seed')}, {_count(images, 'test image')}"
    )
    numbers = f"{difference.value:+.1f} points [{difference.low:.1f}, {difference.high:.1f}]"
    if difference.low > 0:
        return f"Synthetic data helped: {arm} is {numbers} above real data alone ({basis})."
    if difference.high < 0:
        return (
            f"Synthetic data hurt: {arm}, the best arm on validation, is {numbers} against real "
            f"data alone ({basis})."
        )
    return (
        f"Synthetic data did not change accuracy detectably: {arm} is {numbers} against real data "
        f"alone ({basis}); "
        f"an effect of {detectable:.1f} points would be found in four of five such experiments."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""From the arms' predictions to the accuracy table, its intervals, and the verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from truelike.evaluation.accuracy import confusion_matrix, correct, scores
from truelike.evaluation.intervals import Interval, holm
from truelike.evaluation.random_effects import crossed_mean
from truelike.paths import ARMS
from truelike.runtime.errors import TruelikeError
from truelike.training.settings import Arm

REFERENCE = "real"
DIGITS = {"points": 2, "low": 2, "high": 2, "p_value": 4, "p_holm": 4, "detectable": 2}
NO_VERDICT: dict[str, Any] = {
    "arm": None,
    "points": None,
    "low": None,
    "high": None,
    "headline": "No verdict.",
    "basis": "No arm of train.arms has the synthetic set as its partner.",
    "gain_by_class": {},
    "carried_by": None,
    "near_ties": [],
}


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


def arm_scores(test: Mapping[str, Predictions]) -> dict[str, np.ndarray]:
    """The `hits` of every arm, so that differences of arms are paired by seed and image.

    Raises TruelikeError if the arms were trained with different seeds or tested on other images.
    """
    for name, predictions in test.items():
        if predictions.seeds != test[REFERENCE].seeds or predictions.keys != test[REFERENCE].keys:
            raise TruelikeError(
                f"{ARMS / name}: its seeds or test images are not those of 'real'; run `dvc repro`"
            )
    return {name: hits(predictions) for name, predictions in test.items()}


def compare_arms(
    scored: Mapping[str, np.ndarray], pairs: Iterable[tuple[str, str]], confidence: float
) -> pd.DataFrame:
    """Paired comparisons of arms: a row per (arm, against) of points, low, high, p_value, p_holm,
    detectable.

    Percentage points, with t intervals at `confidence` by the variance over seeds and images.
    `p_holm` is corrected for the number of pairs; `detectable` is the difference that such a test
    finds with a power of 80 %.
    """
    rows = []
    for arm, against in pairs:
        change = crossed_mean(scored[arm] - scored[against])
        ends = change.interval(confidence)
        effect = change.detectable(confidence)
        rows.append((arm, against, change.value, ends.low, ends.high, change.p_value, effect))
    columns = ["arm", "against", "points", "low", "high", "p_value", "detectable"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_holm", holm(table["p_value"].tolist()))
    return table


def compare_all(scored: Mapping[str, np.ndarray], confidence: float) -> pd.DataFrame:
    """`compare_arms` of every two arms, each later one against the earlier ones."""
    return compare_arms(scored, ((b, a) for a, b in combinations(scored, 2)), confidence)


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
    test: Mapping[str, Predictions],
    arms: Mapping[str, Arm],
    confidence: float,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The content of metrics/accuracy.json: every arm's accuracy, its difference to the arm `real`,
    and the verdict.

    Percent and percentage points. The verdict's arm is the best one on validation among those that
    train on the synthetic set or a round; its numbers are of test images.
    """
    scored, validated = arm_scores(test), arm_scores(validation)
    pairs = [(name, REFERENCE) for name in scored if name != REFERENCE]
    differences = compare_arms(scored, pairs, confidence).set_index("arm").drop(columns="against")
    candidates = [
        name
        for name, arm in arms.items()
        if arm.uses_partner
        and arm.partner.startswith(("synthetic", "rounds/"))
        and name in differences.index
    ]
    accuracy = {
        name: _rounded(crossed_mean(values).interval(confidence).within(0, 100), "top1")
        | {"validation": round(float(validated[name].mean()), 2)}
        for name, values in scored.items()
    }
    verdict = NO_VERDICT
    if candidates:
        best = max(candidates, key=lambda name: float(validated[name].mean()))
        row = differences.to_dict("index")[best]
        verdict = _verdict(best, test, scored, row, confidence, class_names)
        verdict["near_ties"] = near_ties(validated, best, candidates)
    return {
        "accuracy": accuracy,
        "difference_to_real": differences.round(DIGITS).to_dict("index"),
        "verdict": verdict,
    }


def near_ties(scored: Mapping[str, np.ndarray], best: str, candidates: Sequence[str]) -> list[str]:
    """The other candidates whose validation accuracy is within a standard error of the best one's.

    The standard error is that of the paired difference.
    """
    changes = {name: crossed_mean(scored[best] - scored[name]) for name in candidates}
    return [name for name, c in changes.items() if name != best and c.value <= c.error]


def gain_by_class(
    scored: np.ndarray, against: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """What each class adds to the difference of two arms' accuracy, in points: they sum up to it.

    `scored` and `against` (seeds, N) are hits as percent, `labels` (N,).
    """
    change = (scored - against).mean(0)
    sums = np.bincount(labels, change, len(class_names)) / len(labels)
    return {name: round(float(value), 2) for name, value in zip(class_names, sums, strict=True)}


def carrying_class(gains: Mapping[str, float]) -> str | None:
    """The class without which less than half of the summed gains would be left, if there is one."""
    total = sum(gains.values())
    name = max(gains, key=lambda name: gains[name] * np.sign(total))
    return name if len(gains) > 2 and abs(total - gains[name]) < abs(total) / 2 else None


def _verdict(
    arm: str,
    test: Mapping[str, Predictions],
    scored: Mapping[str, np.ndarray],
    row: Mapping[Any, Any],
    confidence: float,
    class_names: Sequence[str],
) -> dict[str, Any]:
    labels = test[arm].labels
    gains = gain_by_class(scored[arm], scored[REFERENCE], labels, class_names)
    interval = Interval(float(row["points"]), float(row["low"]), float(row["high"]))
    seeds, images = scored[arm].shape
    effect = float(row["detectable"])
    return (
        {"arm": arm}
        | _rounded(interval, "points")
        | {"headline": headline(interval)}
        | {"basis": basis(arm, interval, effect, confidence, seeds, images)}
        | {"gain_by_class": gains, "carried_by": carrying_class(gains)}
    )


def _rounded(interval: Interval, name: str) -> dict[str, float]:
    ends = {"low": round(interval.low, 2), "high": round(interval.high, 2)}
    return {name: round(interval.value, 2)} | ends


def headline(difference: Interval) -> str:
    """Say whether synthetic data helped, by the interval of the arm's difference to real data alone
    (points).
    """
    numbers = f"{difference.value:+.1f} points [{difference.low:.1f}, {difference.high:.1f}]"
    if difference.low > 0:
        return f"Synthetic data helped: {numbers}."
    if difference.high < 0:
        return f"Synthetic data hurt: {numbers}."
    return f"No detectable effect of synthetic data: {numbers}."


def basis(
    arm: str, difference: Interval, detectable: float, confidence: float, seeds: int, images: int
) -> str:
    """Say what the numbers of a headline rest on, and what they could not have shown."""
    text = (
        f"{arm}, the best arm on validation, against real data alone: {100 * confidence:g} % "
        f"interval, {_count(seeds, 'seed')}, {_count(images, 'test image')}, one draw of the data."
    )
    if difference.low <= 0 <= difference.high:
        text += f" An effect of {detectable:.1f} points would be found in four of five experiments."
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

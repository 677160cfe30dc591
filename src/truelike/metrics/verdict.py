"""From the arms' predictions to the accuracy table, its intervals, and the verdict in a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from truelike.config import Arm, Evaluate
from truelike.errors import TruelikeError
from truelike.metrics.accuracy import correct, scores
from truelike.metrics.statistics import Interval, bootstrap_means, percentile_interval, two_sided_p_value

REFERENCE = "real"


@dataclass(frozen=True)
class Predictions:
    """One arm's predictions of one split: `probs` (seeds, N, K), `labels` (N,), the seeds, and the images' keys."""

    probs: np.ndarray
    labels: np.ndarray
    seeds: list[int]
    keys: list[str]


def read_predictions(table: pd.DataFrame, split: str) -> Predictions:
    """Take one split of a predictions table apart; every seed has predicted the same images in the same order."""
    rows = table[table["split"] == split]
    seeds = rows["seed"].drop_duplicates().tolist()
    first = rows[rows["seed"] == seeds[0]]
    probs = np.stack(rows["probs"].tolist()).reshape(len(seeds), len(first), -1)
    return Predictions(probs, first["label"].to_numpy(dtype=np.int64), seeds, first["key"].tolist())


def accuracy_table(arm: str, split: str, predictions: Predictions, class_names: list[str]) -> pd.DataFrame:
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


def summarise(
    validation: Mapping[str, Predictions],
    test: Mapping[str, Predictions],
    arms: Mapping[str, Arm],
    settings: Evaluate,
) -> dict[str, Any]:
    """The content of metrics/accuracy.json: every arm's accuracy, its difference to the arm `real`, and the verdict.

    Percent and percentage points. The verdict's arm is the best one on validation among those whose partner is the
    synthetic set; its numbers are of test. Raises TruelikeError if the arms were trained on different seeds or images.
    """
    for name, predictions in test.items():
        if predictions.seeds != test[REFERENCE].seeds or predictions.keys != test[REFERENCE].keys:
            raise TruelikeError(
                f"outputs/train/{name}: its seeds or test images are not those of 'real'; run `dvc repro`"
            )
    scored = {name: hits(predictions) for name, predictions in test.items()}
    means = {name: bootstrap_means(values, settings.bootstrap, settings.seed) for name, values in scored.items()}
    on_validation = {name: float(hits(predictions).mean()) for name, predictions in validation.items()}
    accuracy, differences, p_values = {}, {}, {}
    for name, values in scored.items():
        accuracy[name] = percentile_interval(float(values.mean()), means[name], settings.confidence)
        if name != REFERENCE:
            change = means[name] - means[REFERENCE]
            points = float(values.mean() - scored[REFERENCE].mean())
            differences[name] = percentile_interval(points, change, settings.confidence)
            p_values[name] = two_sided_p_value(change)
    seeds, images = scored[REFERENCE].shape
    return {
        "accuracy": {
            name: _rounded(interval, "top1") | {"validation": round(on_validation[name], 2)}
            for name, interval in accuracy.items()
        },
        "difference_to_real": {
            name: _rounded(interval, "points") | {"p_value": round(p_values[name], 4)}
            for name, interval in differences.items()
        },
        "verdict": _verdict(arms, on_validation, differences, settings.confidence, seeds, images),
    }


def _rounded(interval: Interval, name: str) -> dict[str, float]:
    return {name: round(interval.value, 2), "low": round(interval.low, 2), "high": round(interval.high, 2)}


def _verdict(
    arms: Mapping[str, Arm],
    validation: Mapping[str, float],
    differences: Mapping[str, Interval],
    confidence: float,
    seeds: int,
    images: int,
) -> dict[str, Any]:
    candidates = [name for name, arm in arms.items() if arm.partner == "synthetic" and name in differences]
    if not candidates:
        sentence = "No verdict: no arm of train.arms has the synthetic set as its partner."
        return {"arm": None, "points": None, "low": None, "high": None, "sentence": sentence}
    arm = max(candidates, key=lambda name: validation[name])
    sentence = verdict_sentence(arm, differences[arm], confidence, seeds, images)
    return {"arm": arm} | _rounded(differences[arm], "points") | {"sentence": sentence}


def verdict_sentence(arm: str, difference: Interval, confidence: float, seeds: int, images: int) -> str:
    """Say whether synthetic data helped, by the interval of the arm's difference to real data alone (points)."""
    basis = f"{100 * confidence:g} % interval, {_count(seeds, 'seed')}, {_count(images, 'test image')}"
    numbers = f"{difference.value:+.1f} points [{difference.low:.1f}, {difference.high:.1f}]"
    if difference.low > 0:
        return f"Synthetic data helped: {arm} is {numbers} above real data alone ({basis})."
    if difference.high < 0:
        return (
            f"Synthetic data hurt: {arm}, the best arm on validation, is {numbers} against real data alone ({basis})."
        )
    reach = (difference.high - difference.low) / 2
    return (
        f"Synthetic data did not change accuracy detectably: {arm} is {numbers} against real data alone ({basis}); "
        f"an effect of about {reach:.1f} points or more would have been seen."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

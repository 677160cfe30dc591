"""From the arms' predictions to every table and number of the evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from truelike.evaluation.classes import class_table, summarise_classes
from truelike.evaluation.ood import ood_accuracy, summarise_ood
from truelike.evaluation.settings import Evaluate
from truelike.evaluation.verdict import (
    accuracy_table,
    arm_scores,
    compare_all,
    confusion_table,
    read_predictions,
    summarise,
)
from truelike.sources.settings import OodSet
from truelike.training.settings import Arm


@dataclass(frozen=True)
class Evaluation:
    """Tables of accuracy, of every two arms, by class, of confusions and out of distribution, and
    the content of metrics/accuracy.json.
    """

    accuracy: pd.DataFrame
    comparisons: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    ood: pd.DataFrame
    metrics: dict[str, Any]


def evaluate(
    predicted: Mapping[str, pd.DataFrame],
    arms: Mapping[str, Arm],
    class_names: list[str],
    indexes: Mapping[str, pd.DataFrame],
    sets: Mapping[str, OodSet],
    settings: Evaluate,
) -> Evaluation:
    """Evaluate the predictions of each of the `arms` (tables of `Predictions`).

    `indexes` are those of the out-of-distribution sets, ``corrupted`` among them; `sets` describes
    the others. An empty one is left out.
    """
    splits = {
        split: {arm: read_predictions(table, split) for arm, table in predicted.items()}
        for split in ("validation", "test")
    }
    rows = [
        accuracy_table(arm, split, predictions, class_names)
        for split, by_arm in splits.items()
        for arm, predictions in by_arm.items()
    ]
    of_sets = {
        name: {arm: read_predictions(table, f"ood/{name}") for arm, table in predicted.items()}
        for name, index in indexes.items()
        if len(index)
    }
    test = splits["test"]
    classes = class_table(test, class_names)
    ood, errors = ood_accuracy(of_sets, sets, class_names, indexes["corrupted"], test, settings)
    metrics = summarise(splits["validation"], test, arms, settings.confidence, class_names)
    metrics["classes"] = summarise_classes(classes)
    metrics["ood"] = summarise_ood(ood, errors)
    return Evaluation(
        accuracy=pd.concat(rows, ignore_index=True),
        comparisons=compare_all(arm_scores(test), settings.confidence),
        classes=classes,
        confusion=confusion_table(test, class_names),
        ood=ood,
        metrics=metrics,
    )

"""Score every arm's predictions and say whether synthetic data helped, with intervals over seeds
and test images.
"""

import json
from typing import Any

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.evaluation.classes import class_table, summarise_classes
from truelike.evaluation.ood import ood_accuracy, summarise_ood
from truelike.evaluation.verdict import (
    REFERENCE,
    accuracy_table,
    arm_scores,
    compare_all,
    confusion_table,
    read_predictions,
    summarise,
)
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.paths import (
    ACCURACY,
    ARMS,
    CLASSES,
    CLASSIFIER,
    COMPARISONS,
    CONFUSION,
    METRICS,
    OOD,
    OOD_ACCURACY,
)
from truelike.runtime.scratch import remove_stale
from truelike.training.trained import best_network, publish_network


def main() -> None:
    params = load_params()
    remove_stale(ARMS, set(params.train.arms))
    remove_stale(OOD, {"corrupted", *params.ood})
    summaries = {arm: _summary(arm) for arm in params.train.arms}
    arms = {name: arm for name, arm in params.train.arms.items() if summaries[name]["seeds"]}
    for name in [name for name in params.train.arms if name not in arms]:
        print(
            f"evaluate: the arm {name} is left out: it was not trained, because there are no extra "
            "real images"
        )
    tables = {arm: pd.read_parquet(ARMS / arm / "predictions.parquet") for arm in arms}
    class_names = summaries["real"]["classes"]
    splits = {
        split: {arm: read_predictions(table, split) for arm, table in tables.items()}
        for split in ("validation", "test")
    }
    rows = [
        accuracy_table(arm, split, predictions, class_names)
        for split, by_arm in splits.items()
        for arm, predictions in by_arm.items()
    ]
    write_table(ACCURACY, pd.concat(rows, ignore_index=True))
    confidence = params.evaluate.confidence
    write_table(COMPARISONS, compare_all(arm_scores(splits["test"]), confidence))
    classes = class_table(splits["test"], class_names)
    write_table(CLASSES, classes)
    write_table(CONFUSION, confusion_table(splits["test"], class_names))
    metrics = summarise(splits["validation"], splits["test"], arms, confidence, class_names)
    metrics["classes"] = summarise_classes(classes)
    sets = {name: ImageSet(OOD / name) for name in ("corrupted", *params.ood)}
    predicted = {
        name: {arm: read_predictions(table, f"ood/{name}") for arm, table in tables.items()}
        for name, images in sets.items()
        if len(images)
    }
    corrupted = sets["corrupted"].index
    table, errors = ood_accuracy(
        predicted, params.ood, class_names, corrupted, splits["test"], params.evaluate
    )
    write_table(OOD_ACCURACY, table)
    metrics["ood"] = summarise_ood(table, errors)
    file = METRICS / "accuracy.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    network = best_network(ARMS / (metrics["verdict"]["arm"] or REFERENCE))
    publish_network(network, CLASSIFIER)
    print(metrics["verdict"]["headline"], metrics["verdict"]["basis"])


def _summary(arm: str) -> dict[str, Any]:
    return json.loads((ARMS / arm / "summary.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run("evaluate", main)

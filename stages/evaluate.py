"""Score every arm's predictions and say whether synthetic data helped, with intervals over seeds
and test images.
"""

import json
from typing import Any

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.evaluation.evaluate import evaluate
from truelike.evaluation.verdict import REFERENCE
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
    summaries = {arm: _summary(arm) for arm in params.train.arms}
    arms = {name: arm for name, arm in params.train.arms.items() if summaries[name]["seeds"]}
    for name in [name for name in params.train.arms if name not in arms]:
        print(
            f"evaluate: the arm {name} is left out: it was not trained, because there are no extra "
            "real images"
        )
    predicted = {arm: pd.read_parquet(ARMS / arm / "predictions.parquet") for arm in arms}
    indexes = {name: ImageSet(OOD / name).index for name in ("corrupted", *params.ood)}
    class_names = summaries[REFERENCE]["classes"]
    found = evaluate(predicted, arms, class_names, indexes, params.ood, params.evaluate)
    write_table(ACCURACY, found.accuracy)
    write_table(COMPARISONS, found.comparisons)
    write_table(CLASSES, found.classes)
    write_table(CONFUSION, found.confusion)
    write_table(OOD_ACCURACY, found.ood)
    file = METRICS / "accuracy.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found.metrics, indent=2) + "\n", encoding="utf-8")
    verdict = found.metrics["verdict"]
    publish_network(best_network(ARMS / (verdict["arm"] or REFERENCE)), CLASSIFIER)
    print(verdict["headline"], verdict["basis"])


def _summary(arm: str) -> dict[str, Any]:
    return json.loads((ARMS / arm / "summary.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run("evaluate", main)

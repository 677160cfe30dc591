"""Score every arm's predictions and say whether synthetic data helped, with intervals over seeds and test images."""

import json
from pathlib import Path

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.data.tables import write_table
from truelike.metrics.verdict import accuracy_table, read_predictions, summarise
from truelike.scratch import remove_stale

TRAIN = Path("outputs/train")


def main() -> None:
    params = load_params()
    arms = params.train.arms
    remove_stale(TRAIN, set(arms))
    tables = {arm: pd.read_parquet(TRAIN / arm / "predictions.parquet") for arm in arms}
    class_names = json.loads((TRAIN / "real" / "summary.json").read_text(encoding="utf-8"))["classes"]
    splits = {
        split: {arm: read_predictions(table, split) for arm, table in tables.items()}
        for split in ("validation", "test")
    }
    rows = [
        accuracy_table(arm, split, predictions, class_names)
        for split, by_arm in splits.items()
        for arm, predictions in by_arm.items()
    ]
    write_table(Path("outputs/accuracy.parquet"), pd.concat(rows, ignore_index=True))
    metrics = summarise(splits["validation"], splits["test"], arms, params.evaluate)
    file = Path("metrics/accuracy.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(metrics["verdict"]["sentence"])


if __name__ == "__main__":
    run("evaluate", main)

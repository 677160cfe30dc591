"""How well each arm recognises each class: for long tails, where accuracy hides the rare ones."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from truelike.evaluation.verdict import Predictions


def class_table(test: Mapping[str, Predictions], class_names: Sequence[str]) -> pd.DataFrame:
    """Recall, precision and F1 of each class in percent, means over the seeds.

    Rows of arm, class_name, images, recall, precision, f1. Missing where undefined in every seed:
    all of a class without test images that is never predicted, the precision of one that is never
    predicted.
    """
    tables = []
    for arm, predictions in test.items():
        each = [_of_a_seed(probs, predictions.labels) for probs in predictions.probs]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # all are missing
            recall, precision, f1 = np.nanmean(each, axis=0)
        images = np.bincount(predictions.labels, minlength=len(class_names))
        columns = {"class_name": class_names, "images": images, "recall": recall}
        table = pd.DataFrame(columns | {"precision": precision, "f1": f1})
        table.insert(0, "arm", arm)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _of_a_seed(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Recall, precision and F1 of each class in percent: float64 of shape (3, K)."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, probs.argmax(1), labels=range(probs.shape[1]), zero_division=np.nan
    )
    return 100 * np.stack([recall, precision, f1])


def summarise_classes(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By arm, of the classes with test images: `macro_f1`, their mean F1, and `worst_class`, the
    one with the lowest recall, with that `recall`; percent.
    """
    found = {}
    for arm, rows in table[table["images"] > 0].groupby("arm", sort=False):
        worst = rows.sort_values("recall", kind="stable").iloc[0]
        found[str(arm)] = {
            "macro_f1": round(float(rows["f1"].mean()), 2),
            "worst_class": {
                "class": str(worst["class_name"]),
                "recall": round(float(worst["recall"]), 2),
            },
        }
    return found

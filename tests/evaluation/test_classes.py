"""Recall, precision and F1 by class, by hand."""

import numpy as np
import pytest

from truelike.evaluation.classes import class_table, summarise_classes
from truelike.evaluation.verdict import Predictions

NAMES = ["a", "b", "c", "d"]


def predictions(*seeds: list[int]) -> Predictions:
    labels = np.array([0, 0, 0, 1, 1, 2])
    probs = np.stack([np.eye(4)[seed] for seed in seeds])
    return Predictions(probs, labels, list(range(len(seeds))), [str(key) for key in range(6)])


def test_classes_by_hand() -> None:
    first, second = [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 2]
    table = class_table({"real": predictions(first, second)}, NAMES)
    assert table["images"].tolist() == [3, 2, 1, 0]
    recall = [(200 / 3 + 100) / 2, 75, 50, np.nan]
    precision = [(200 / 3 + 75) / 2, (200 / 3 + 100) / 2, 100, np.nan]  # c: once never predicted
    f1 = [(200 / 3 + 600 / 7) / 2, (80 + 200 / 3) / 2, 50, np.nan]
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["f1"], f1)
    found = summarise_classes(table)["real"]
    assert found["macro_f1"] == pytest.approx(np.mean(f1[:3]), abs=0.01)
    assert found["worst_class"] == {"class": "c", "recall": 50.0}


def test_a_rare_class_that_is_never_recognised_is_the_worst_whatever_the_accuracy() -> None:
    table = class_table({"real": predictions([0, 0, 0, 1, 1, 0])}, NAMES)
    assert summarise_classes(table)["real"]["worst_class"] == {"class": "c", "recall": 0.0}
    assert table["f1"].tolist()[2] == 0
    assert table["arm"].unique().tolist() == ["real"]

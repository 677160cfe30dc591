"""Accuracy, intervals and the verdict against values computed by hand and against torchmetrics."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification import multiclass_accuracy

from truelike.evaluation.accuracy import (
    class_accuracy,
    confusion_matrix,
    correct,
    expected_calibration_error,
    negative_log_likelihood,
    scores,
)
from truelike.evaluation.intervals import (
    Interval,
    bootstrap_means,
    class_resamples,
    holm,
    percentile_interval,
    recentred,
    wilson_interval,
)
from truelike.evaluation.verdict import (
    Predictions,
    accuracy_table,
    arm_scores,
    basis,
    carrying_class,
    compare_all,
    confusion_table,
    gain_by_class,
    headline,
    near_ties,
    read_predictions,
    summarise,
)
from truelike.runtime.errors import TruelikeError
from truelike.training.settings import Arm


def probabilities(seed: int, size: int = 300, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, classes))
    labels = rng.integers(classes, size=size)
    logits[np.arange(size), labels] += 1
    exponent = np.exp(logits)
    return (exponent / exponent.sum(1, keepdims=True)).astype(np.float32), labels


def test_accuracy_and_calibration_are_those_of_torchmetrics() -> None:
    probs, labels = probabilities(0)
    first, second = torch.from_numpy(probs), torch.from_numpy(labels)
    found = scores(probs, labels, [str(c) for c in range(7)])

    def expected(**options: object) -> float:
        return 100 * multiclass_accuracy(first, second, num_classes=7, **options).item()  # type: ignore[arg-type]

    assert found["top1"] == pytest.approx(expected(average="micro"), rel=1e-4)
    assert found["top5"] == pytest.approx(expected(average="micro", top_k=5), rel=1e-4)
    assert found["balanced"] == pytest.approx(expected(average="macro"), rel=1e-4)
    calibration = MulticlassCalibrationError(7, n_bins=15, norm="l1")(first, second).item()
    assert found["ece"] == pytest.approx(calibration, rel=1e-4)
    nll = torch.nn.functional.nll_loss(first.log(), second).item()
    assert found["nll"] == pytest.approx(nll, rel=1e-4)


def test_accuracy_by_hand() -> None:
    probs = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], np.float32
    )
    labels = np.array([0, 1, 1, 0])
    assert correct(probs, labels).tolist() == [True, True, False, False]
    assert correct(probs, labels, top=2).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(class_accuracy(probs, labels), [50, 50, np.nan])
    assert negative_log_likelihood(probs, labels) == pytest.approx(
        -np.log([0.7, 0.6, 0.3, 0.2]).mean()
    )
    # bins of 1/15: 0.7 -> (10, 11], 0.6 -> (8, 9], and the two 0.5 (wrong) together
    assert expected_calibration_error(probs, labels) == pytest.approx(
        (0.3 + 0.4 + 2 * 0.5) / 4, rel=1e-5
    )


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_accuracy_does_not_depend_on_the_order_of_images(seed: int) -> None:
    probs, labels = probabilities(seed, 50, 4)
    order = np.random.default_rng(seed).permutation(50)
    names = ["a", "b", "c", "d"]
    assert scores(probs, labels, names) == pytest.approx(
        scores(probs[order], labels[order], names), nan_ok=True
    )


def test_bootstrap_interval_has_the_standard_error_of_a_mean_over_images() -> None:
    values = (np.random.default_rng(0).random((1, 400)) < 0.7).astype(float)
    means = bootstrap_means(values, 4000, seed=1)
    assert means.mean() == pytest.approx(values.mean(), abs=0.003)
    assert means.std() == pytest.approx(
        np.sqrt(values.mean() * (1 - values.mean()) / 400), rel=0.05
    )


def test_bootstrap_includes_the_variance_over_seeds() -> None:
    values = np.array([[0.0] * 50, [1.0] * 50])  # the seeds differ, the images do not
    assert bootstrap_means(values, 4000, seed=0).std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_differences_are_paired() -> None:
    base = np.random.default_rng(0).random((5, 200))
    difference = bootstrap_means(base + 0.1, 500, seed=3) - bootstrap_means(base, 500, seed=3)
    np.testing.assert_allclose(difference, 0.1, atol=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_resamples_keep_the_number_of_images_of_each_class() -> None:
    labels = np.array([0, 1, 1, 0, 1, 2])
    counts = class_resamples(labels, 500, np.random.default_rng(0))
    for label, size in enumerate((2, 3, 1)):
        assert (counts[:, labels == label].sum(1) == size).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.15)
    assert counts[:, 5].tolist() == [1] * 500


def test_recentred_draws_have_the_estimate_as_their_mean() -> None:
    draws = recentred(3.0, np.array([5.0, 6.0, 10.0]))
    assert draws.tolist() == [1, 2, 6]


def test_wilson_interval_by_hand() -> None:
    none = wilson_interval(0.0, 100, 0.95)
    z = 1.959964
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(z**2 / (100 + z**2), rel=1e-4)
    half = wilson_interval(0.5, 100, 0.95)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40), st.floats(0.5, 0.99))
def test_interval_lies_within_the_draws(draws: list[float], confidence: float) -> None:
    interval = percentile_interval(0.0, np.array(draws), confidence)
    assert min(draws) - 1e-9 <= interval.low <= interval.high <= max(draws) + 1e-9


def planted(accuracy: float, seed: int, size: int = 800, seeds: int = 5) -> Predictions:
    """Predictions right on a share of the images that are the same in every seed but for a few."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 4
    probs = np.full((seeds, size, 4), 0.1, np.float32)
    for number in range(seeds):
        hit = np.arange(size) / size < accuracy
        hit ^= rng.random(size) < 0.02
        probs[number, np.arange(size), np.where(hit, labels, (labels + 1) % 4)] = 0.7
    return Predictions(probs, labels, list(range(seeds)), [str(i) for i in range(size)])


def arms(**partners: str) -> dict[str, Arm]:
    return {
        name: Arm.model_validate({"partner": partner, "phases": [{"on": "real+partner"}]})
        for name, partner in partners.items()
    }


NAMES = ["a", "b", "c", "d"]


def summary(
    validation: dict[str, Predictions], test: dict[str, Predictions], chosen: dict[str, Arm]
) -> dict:
    return summarise(validation, test, chosen, 0.95, NAMES)


def test_verdict_is_chosen_on_validation_and_reported_on_test() -> None:
    chosen = arms(real="extra", mixed="synthetic", bridged="synthetic", more_real="extra")
    validation = {
        "real": planted(0.6, 0),
        "mixed": planted(0.7, 1),
        "bridged": planted(0.65, 2),
        "more_real": planted(0.9, 3),
    }
    test = {
        "real": planted(0.6, 4),
        "mixed": planted(0.64, 5),
        "bridged": planted(0.8, 6),
        "more_real": planted(0.9, 7),
    }
    found = summary(validation, test, chosen)
    verdict = found["verdict"]
    assert verdict["arm"] == "mixed"  # bridged is better on test, more_real is no synthetic arm
    assert verdict["points"] == found["difference_to_real"]["mixed"]["points"]
    assert verdict["points"] == pytest.approx(
        found["accuracy"]["mixed"]["top1"] - found["accuracy"]["real"]["top1"], abs=0.02
    )
    assert verdict["headline"].startswith("Synthetic data helped: +")
    assert verdict["basis"] == (
        "mixed, the best arm on validation, against real data alone: 95 % interval, 5 seeds, "
        "800 test images, one draw of the data."
    )
    assert "real" not in found["difference_to_real"]
    assert found["difference_to_real"]["bridged"]["p_value"] < 0.05


def test_an_arm_on_a_round_can_be_the_verdicts_and_one_on_a_partial_set_cannot() -> None:
    chosen = arms(real="extra", mixed="synthetic", later="rounds/first", gap="partial/none")
    accuracies = {"real": 0.6, "mixed": 0.65, "later": 0.7, "gap": 0.8}
    found = {
        name: planted(accuracy, number)
        for number, (name, accuracy) in enumerate(accuracies.items())
    }
    assert summary(found, found, chosen)["verdict"]["arm"] == "later"


def test_an_arm_that_sees_no_synthetic_image_is_not_the_verdicts() -> None:
    chosen = arms(real="extra", mixed="synthetic")
    control = {"partner": "synthetic", "phases": [{"on": "real", "mixup": 0.2}]}
    chosen["real_mixup"] = Arm.model_validate(control)
    accuracies = {"real": 0.6, "mixed": 0.65, "real_mixup": 0.7}
    found = {name: planted(accuracy, 0) for name, accuracy in accuracies.items()}
    assert summary(found, found, chosen)["verdict"]["arm"] == "mixed"


def test_verdict_says_when_it_hurt_or_could_not_tell() -> None:
    chosen = arms(real="extra", mixed="synthetic")
    same, worse = planted(0.6, 1), planted(0.5, 2)
    unclear = summary({"real": same, "mixed": same}, {"real": same, "mixed": same}, chosen)[
        "verdict"
    ]
    assert unclear["headline"].startswith("No detectable effect of synthetic data: +0.0 points")
    hurt = summary({"real": same, "mixed": worse}, {"real": same, "mixed": worse}, chosen)[
        "verdict"
    ]
    assert hurt["headline"].startswith("Synthetic data hurt: -")
    difference = Interval(0.2, -0.6, 1.0)
    assert (
        headline(difference) == "No detectable effect of synthetic data: +0.2 points [-0.6, 1.0]."
    )
    text = basis("mixed", difference, 1.3, 0.9, 1, 100)
    assert "90 % interval, 1 seed, 100 test images, one draw of the data" in text
    assert text.endswith("An effect of 1.3 points would be found in four of five experiments.")
    alone = summary({"real": same}, {"real": same}, arms(real="extra"))["verdict"]
    assert alone["arm"] is None


def test_an_accuracy_is_a_share_at_both_ends_of_its_interval() -> None:
    few = planted(0.6, 1)
    rare = Predictions(few.probs[:, :8], few.labels[:8], few.seeds, few.keys[:8])
    row = summary({"real": rare}, {"real": rare}, arms(real="extra"))["accuracy"]["real"]
    assert 0 <= row["low"] <= row["top1"] <= row["high"] <= 100
    assert Interval(8.3, -3.6, 20.3).within(0, 100) == Interval(8.3, 0, 20.3)


def test_near_ties_on_validation_are_said() -> None:
    scored = {
        name: 100.0 * (planted(accuracy, 3).probs.argmax(2) == np.arange(800) % 4)
        for name, accuracy in (("mixed", 0.70), ("bridged", 0.699), ("synthetic", 0.5))
    }
    assert near_ties(scored, "mixed", list(scored)) == ["bridged"]


def test_what_each_class_adds_sums_up_to_the_difference() -> None:
    labels = np.array([0, 0, 1, 2])
    scored = np.array([[100.0, 100, 0, 0], [100, 0, 0, 100]])
    against = np.array([[0.0, 0, 0, 100], [0, 0, 0, 100]])
    assert gain_by_class(scored, against, labels, ["a", "b", "c"]) == {
        "a": 37.5,
        "b": 0,
        "c": -12.5,
    }


def test_a_class_that_carries_the_verdict_is_named() -> None:
    assert carrying_class({"shirt": 1.18, "coat": 0.2, "bag": 0.03}) == "shirt"
    assert carrying_class({"shirt": 0.4, "coat": 0.5, "bag": 0.5}) is None
    assert carrying_class({"shirt": -0.1, "coat": -2.0, "bag": 0.3}) == "coat"
    assert carrying_class({"a": 1.0, "b": 0.0}) is None  # of two classes, one always would


def test_every_two_arms_are_compared_and_the_p_values_corrected() -> None:
    test = {"real": planted(0.6, 4), "mixed": planted(0.6, 4), "bridged": planted(0.8, 6)}
    table = compare_all(arm_scores(test), 0.95).set_index(["arm", "against"])
    assert list(table.index) == [("mixed", "real"), ("bridged", "real"), ("bridged", "mixed")]
    assert table.loc[("mixed", "real"), "p_value"] == 1
    assert table.loc[("bridged", "mixed"), "points"] == pytest.approx(
        table.loc[("bridged", "real"), "points"]
    )
    np.testing.assert_allclose(table["p_holm"], holm(table["p_value"].tolist()))
    assert table.loc[("bridged", "real"), "p_holm"] < 0.01
    assert 0 < table.loc[("bridged", "real"), "detectable"] < 5


def test_confusion_by_hand_and_added_up_over_seeds() -> None:
    probs = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], np.float32
    )
    labels = np.array([0, 1, 1, 0])
    assert confusion_matrix(probs, labels).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    table = confusion_table(
        {"real": Predictions(np.stack([probs, probs]), labels, [0, 1], list("abcd"))},
        ["x", "y", "z"],
    )
    cells = table.set_index(["class_name", "predicted"])["count"]
    assert cells["x", "z"] == cells["y", "x"] == 2
    assert cells.sum() == 8
    assert set(table["arm"]) == {"real"}


def test_arms_of_different_seeds_are_refused() -> None:
    chosen = arms(real="extra", mixed="synthetic")
    split = {"real": planted(0.6, 0), "mixed": planted(0.6, 0, seeds=3)}
    with pytest.raises(TruelikeError, match="outputs/train/mixed"):
        summary(split, split, chosen)


def test_predictions_are_read_back_by_seed() -> None:
    probs, labels = probabilities(0, size=6, classes=3)
    rows = [
        (s, split, f"k{i}", labels[i], probs[i] + s)
        for s in (3, 1)
        for split in ("validation", "test")
        for i in range(6)
    ]
    table = pd.DataFrame(rows, columns=["seed", "split", "key", "label", "probs"])
    found = read_predictions(table, "test")
    assert found.seeds == [3, 1]
    np.testing.assert_array_equal(found.probs, np.stack([probs + 3, probs + 1]))
    np.testing.assert_array_equal(found.labels, labels)
    rows_long = accuracy_table(
        "mixed", "test", Predictions(probs[None], labels, [3], found.keys), ["a", "b", "c"]
    )
    assert rows_long["metric"].tolist() == [
        "top1",
        "top5",
        "balanced",
        "nll",
        "ece",
        "class:a",
        "class:b",
        "class:c",
    ]

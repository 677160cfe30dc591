"""Metrics against values computed by hand and against torchmetrics and prdc."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from truelike.config import Arm, Evaluate
from truelike.errors import TruelikeError
from truelike.metrics import fidelity
from truelike.metrics.accuracy import (
    class_accuracy,
    correct,
    expected_calibration_error,
    negative_log_likelihood,
    scores,
)
from truelike.metrics.audit import Features, audit
from truelike.metrics.fidelity import frechet_distance, kernel_distance, manifold_metrics
from truelike.metrics.memorisation import copy_threshold, near_copy_rate, nearest
from truelike.metrics.statistics import Interval, bootstrap_means, percentile_interval, two_sided_p_value
from truelike.metrics.verdict import Predictions, accuracy_table, read_predictions, summarise, verdict_sentence


def features(seed: int, size: int, dim: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, dim)) * np.linspace(0.5, 2, dim) + shift).astype(np.float32)


def probabilities(seed: int, size: int = 300, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, classes))
    labels = rng.integers(classes, size=size)
    logits[np.arange(size), labels] += 1
    exponent = np.exp(logits)
    return (exponent / exponent.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(params=[2048, 13], ids=["one chunk", "many chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "CHUNK", request.param)
    monkeypatch.setattr("truelike.metrics.memorisation.CHUNK", request.param)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    real, fake = features(0, 90), features(1, 110, shift=0.3)
    first, second = torch.from_numpy(real).double(), torch.from_numpy(fake).double()
    expected = _compute_fid(first.mean(0), first.T.cov(), second.mean(0), second.T.cov()).item()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_by_hand() -> None:
    real = np.array([[-1.0], [1.0]])  # variance 2
    fake = np.array([[1.0], [5.0]])  # variance 8, mean 3
    assert frechet_distance(real, fake) == pytest.approx(9 + (np.sqrt(8) - np.sqrt(2)) ** 2)


def test_frechet_distance_of_fewer_images_than_dimensions_is_zero_for_a_sample_and_itself() -> None:
    real = features(0, 6, dim=20)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("chunks")
def test_kernel_distance_is_that_of_torchmetrics() -> None:
    real, fake = features(0, 100), features(1, 100, shift=0.5)
    first, second = torch.from_numpy(real).double(), torch.from_numpy(fake).double()
    assert kernel_distance(real, fake) == pytest.approx(poly_mmd_of(first, second), rel=1e-4)


def poly_mmd_of(first: torch.Tensor, second: torch.Tensor) -> float:
    return poly_mmd(first, second, degree=3, gamma=None, coef=1.0).item()


def test_kernel_distance_by_hand() -> None:
    real, fake = np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]])
    within_real, within_fake = 1.0, 1.0  # k(0, 1) = k(2, 0) = 1
    between = (1 + 1 + 27 + 1) / 4  # k(0,2), k(0,0), k(1,2), k(1,0)
    assert kernel_distance(real, fake) == pytest.approx(within_real + within_fake - 2 * between)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("neighbours", [1, 5])
def test_manifold_metrics_are_those_of_prdc(neighbours: int) -> None:
    real, fake = features(0, 90), features(1, 110, shift=0.4)
    expected = compute_prdc(real.astype(np.float64), fake.astype(np.float64), neighbours)
    found, covered = manifold_metrics(real, fake, neighbours)
    assert found == pytest.approx(expected, rel=1e-4)
    assert covered.mean() == pytest.approx(expected["coverage"])


def test_manifold_metrics_by_hand() -> None:
    real = np.array([[0.0], [1.0], [10.0], [12.0]])  # radii 1, 1, 2, 2
    fake = np.array([[0.5], [0.6], [30.0]])  # radii 0.1, 0.1, 29.4
    found, covered = manifold_metrics(real, fake, 1)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx((2 + 2 + 0) / 3)
    assert covered.tolist() == [True, True, False, False]
    assert found["recall"] == pytest.approx(3 / 4)  # 1, 10 and 12 lie within 29.4 of 30


@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_fidelity_invariants(seed: int, shift: float) -> None:
    real, fake = features(seed, 30, 5), features(seed + 1, 40, 5, shift)
    rotation = np.linalg.qr(features(seed + 2, 5, 5))[0]
    assert frechet_distance(real, fake) >= 0
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-6, abs=1e-6)
    turned = frechet_distance(real @ rotation, fake @ rotation)
    assert turned == pytest.approx(frechet_distance(real, fake), rel=1e-3, abs=1e-3)
    assert kernel_distance(real, fake) == pytest.approx(kernel_distance(fake, real), rel=1e-9, abs=1e-9)
    itself, _ = manifold_metrics(real, real, 3)
    assert itself["precision"] == itself["recall"] == itself["coverage"] == 1
    found, _ = manifold_metrics(real, fake, 3)
    assert all(0 <= found[name] <= 1 for name in ("precision", "recall", "coverage"))


@pytest.mark.usefixtures("chunks")
def test_nearest_is_the_most_similar() -> None:
    first, second = features(0, 40), features(1, 30)
    norm = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (first, second)]
    expected = norm[0] @ norm[1].T
    positions, similarity = nearest(first, second)
    np.testing.assert_array_equal(positions, expected.argmax(1))
    np.testing.assert_allclose(similarity, expected.max(1), rtol=1e-5)
    own, own_similarity = nearest(first, first, exclude_self=True)
    assert (own != np.arange(40)).all()
    assert (own_similarity < 0.9999).all()


def test_a_planted_copy_is_found_and_counted() -> None:
    train, held_out, fake = features(0, 60), features(1, 200), features(2, 100)
    fake[17] = train[5] * 1.5  # similarity does not depend on length
    positions, similarity = nearest(fake, train)
    threshold = copy_threshold(nearest(held_out, train)[1])
    assert positions[17] == 5
    assert similarity[17] == pytest.approx(1, abs=1e-6)
    assert near_copy_rate(similarity[17:18], threshold) == 1
    assert near_copy_rate(nearest(held_out, train)[1], threshold) == pytest.approx(0.01, abs=0.005)


def test_audit_finds_a_copy_a_collapsed_set_and_the_yardstick() -> None:
    labels = np.arange(60) % 2
    values = features(0, 60) + 4 * labels[:, None]
    train = Features([f"t{i}" for i in range(60)], labels, values)
    held_out = Features(
        [f"h{i}" for i in range(100)], np.arange(100) % 2, features(1, 100) + 4 * (np.arange(100) % 2)[:, None]
    )
    collapsed = values[[0, 1]][labels] + 0.01 * features(2, 60)
    naive = Features([f"n{i}" for i in range(60)], labels, collapsed.astype(np.float32))
    good = features(3, 60) + 4 * labels[:, None]
    good[7] = values[9]
    synthetic = Features([f"s{i}" for i in range(60)], labels, good)
    sets = {"naive": naive, "synthetic": synthetic, "real": held_out}
    found = audit(train, sets, ["a", "b"], neighbours=5, bootstrap=50, seed=0)
    assert set(found.metrics) == set(sets)
    real, collapsed_row = found.metrics["real"], found.metrics["naive"]
    assert collapsed_row["coverage"] < 0.5 < real["coverage"]  # type: ignore[operator]
    assert collapsed_row["frechet"] > real["frechet"]  # type: ignore[operator]
    assert real["coverage_low"] <= real["coverage"] <= real["coverage_high"]  # type: ignore[operator]
    assert real["near_copy_rate"] == pytest.approx(0.01)
    worst = found.near_copies[found.near_copies["set"] == "synthetic"].iloc[0]
    assert (worst["key"], worst["nearest_key"]) == ("s7", "t9")
    assert found.near_copies["similarity"].is_monotonic_decreasing
    assert set(found.per_class["class_name"]) == {"a", "b"}
    again = audit(train, sets, ["a", "b"], neighbours=5, bootstrap=50, seed=0)
    assert again.metrics == found.metrics


def test_audit_of_classes_too_small_for_a_neighbourhood_leaves_them_out() -> None:
    small = Features(["a", "b", "c", "d"], np.array([0, 0, 1, 1]), features(0, 4))
    found = audit(small, {"real": small}, ["x", "y"], neighbours=5, bootstrap=5, seed=0)
    assert found.metrics["real"]["coverage"] is None
    assert found.per_class.query("metric == 'coverage'")["value"].isna().all()


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
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], np.float32)
    labels = np.array([0, 1, 1, 0])
    assert correct(probs, labels).tolist() == [True, True, False, False]
    assert correct(probs, labels, top=2).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(class_accuracy(probs, labels), [50, 50, np.nan])
    assert negative_log_likelihood(probs, labels) == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.2]).mean())
    # bins of 1/15: 0.7 -> (10, 11], 0.6 -> (8, 9], and the two 0.5 (wrong) together
    assert expected_calibration_error(probs, labels) == pytest.approx((0.3 + 0.4 + 2 * 0.5) / 4, rel=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_accuracy_does_not_depend_on_the_order_of_images(seed: int) -> None:
    probs, labels = probabilities(seed, 50, 4)
    order = np.random.default_rng(seed).permutation(50)
    names = ["a", "b", "c", "d"]
    assert scores(probs, labels, names) == pytest.approx(scores(probs[order], labels[order], names), nan_ok=True)


def test_bootstrap_interval_has_the_standard_error_of_a_mean_over_images() -> None:
    values = (np.random.default_rng(0).random((1, 400)) < 0.7).astype(float)
    means = bootstrap_means(values, 4000, seed=1)
    assert means.mean() == pytest.approx(values.mean(), abs=0.003)
    assert means.std() == pytest.approx(np.sqrt(values.mean() * (1 - values.mean()) / 400), rel=0.05)


def test_bootstrap_includes_the_variance_over_seeds() -> None:
    values = np.array([[0.0] * 50, [1.0] * 50])  # the seeds differ, the images do not
    assert bootstrap_means(values, 4000, seed=0).std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_differences_are_paired() -> None:
    base = np.random.default_rng(0).random((5, 200))
    difference = bootstrap_means(base + 0.1, 500, seed=3) - bootstrap_means(base, 500, seed=3)
    np.testing.assert_allclose(difference, 0.1, atol=1e-12)


def test_p_value_by_hand() -> None:
    assert two_sided_p_value(np.array([1.0] * 99)) == pytest.approx(2 / 100)
    assert two_sided_p_value(np.array([1.0, -1.0, 1.0])) == pytest.approx(1.0)
    assert two_sided_p_value(np.zeros(9)) == 1


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40), st.floats(0.5, 0.99))
def test_interval_lies_within_the_draws(draws: list[float], confidence: float) -> None:
    interval = percentile_interval(0.0, np.array(draws), confidence)
    assert min(draws) - 1e-9 <= interval.low <= interval.high <= max(draws) + 1e-9
    assert 0 < two_sided_p_value(np.array(draws)) <= 1


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


EVALUATE = Evaluate(confidence=0.95, bootstrap=500, seed=0)


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
    found = summarise(validation, test, chosen, EVALUATE)
    verdict = found["verdict"]
    assert verdict["arm"] == "mixed"  # bridged is better on test, more_real is no synthetic arm
    assert verdict["points"] == found["difference_to_real"]["mixed"]["points"]
    assert verdict["points"] == pytest.approx(
        found["accuracy"]["mixed"]["top1"] - found["accuracy"]["real"]["top1"], abs=0.02
    )
    assert verdict["sentence"].startswith("Synthetic data helped: mixed is +")
    assert "(95 % interval, 5 seeds, 800 test images)" in verdict["sentence"]
    assert "real" not in found["difference_to_real"]
    assert found["difference_to_real"]["bridged"]["p_value"] < 0.05


def test_verdict_says_when_it_hurt_or_could_not_tell() -> None:
    chosen = arms(real="extra", mixed="synthetic")
    same, worse = planted(0.6, 1), planted(0.5, 2)
    unclear = summarise({"real": same, "mixed": same}, {"real": same, "mixed": same}, chosen, EVALUATE)["verdict"]
    assert "did not change accuracy detectably" in unclear["sentence"]
    hurt = summarise({"real": same, "mixed": worse}, {"real": same, "mixed": worse}, chosen, EVALUATE)["verdict"]
    assert hurt["sentence"].startswith("Synthetic data hurt: mixed")
    sentence = verdict_sentence("mixed", Interval(0.2, -0.6, 1.0), 0.9, 1, 100)
    assert "mixed is +0.2 points [-0.6, 1.0]" in sentence
    assert "(90 % interval, 1 seed, 100 test images); an effect of about 0.8 points" in sentence
    alone = summarise({"real": same}, {"real": same}, arms(real="extra"), EVALUATE)["verdict"]
    assert alone["arm"] is None


def test_arms_of_different_seeds_are_refused() -> None:
    chosen = arms(real="extra", mixed="synthetic")
    split = {"real": planted(0.6, 0), "mixed": planted(0.6, 0, seeds=3)}
    with pytest.raises(TruelikeError, match="outputs/train/mixed"):
        summarise(split, split, chosen, EVALUATE)


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
    rows_long = accuracy_table("mixed", "test", Predictions(probs[None], labels, [3], found.keys), ["a", "b", "c"])
    assert rows_long["metric"].tolist() == ["top1", "top5", "balanced", "nll", "ece", "class:a", "class:b", "class:c"]

"""Membership inference on numbers: by hand, against scikit-learn and scipy, and on answers that
leak all or nothing.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import auc, balanced_accuracy_score

from truelike.privacy.lira import (
    attack_scores,
    balanced_accuracy,
    best_threshold,
    calls,
    infer,
    lira_offline,
    lira_online,
    logit_confidence,
    measure,
    roc,
    tpr_at,
)
from truelike.sources.split import halves


def half_splits(
    images: int, shadows: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who is a member of which shadow (S, N), the shadows' pairs, and labels of two classes."""
    items = list(range(images))
    member = np.zeros((shadows, images), bool)
    for number in range(shadows):
        chosen = halves(items, number // 2, str, lambda image: str(image % 2), seed)[number % 2]
        member[number, chosen] = True
    return member, np.arange(shadows) // 2, np.arange(images) % 2


def test_logit_confidence_by_hand_and_near_certainty() -> None:
    probs = np.array([[0.8, 0.1, 0.1], [1e-12, 1.0, 0.0], [0.25, 0.25, 0.5]], np.float32)
    found = logit_confidence(probs, np.array([0, 1, 2]))
    np.testing.assert_allclose(found, [np.log(4), 12 * np.log(10), 0], rtol=1e-6, atol=1e-6)
    assert np.isfinite(logit_confidence(np.array([[1, 0]], np.float32), np.array([0]))).all()


def test_lira_by_hand() -> None:
    member = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    shadows = np.array([[1.0, 7.0], [3.0, 5.0], [-1.0, 9.0], [1.0, 9.0]])
    # in: means 2 and 9, squares 1 + 1 + 0 + 0 over 4 - 2; out: means 0 and 6, squares 1 + 1 + 1 + 1
    # over 4 - 2
    target = np.array([2.0, 7.0])
    expected = norm.logpdf(target, [2, 9], 1) - norm.logpdf(target, [0, 6], np.sqrt(2))
    np.testing.assert_allclose(lira_online(target, shadows, member), expected)
    np.testing.assert_allclose(expected, [1 + np.log(2) / 2, 0.25 - 2 + np.log(2) / 2])
    np.testing.assert_allclose(
        lira_offline(target, shadows, member), [2 / np.sqrt(2), 1 / np.sqrt(2)]
    )


def test_a_shadow_is_attacked_by_those_of_the_other_pairs_alone() -> None:
    member, pairs, _ = half_splits(12, 8)
    logits = np.random.default_rng(0).normal(size=member.shape)
    scores = attack_scores(logits, member, pairs)
    others = [0, 1, 4, 5, 6, 7]
    expected = lira_online(logits[2], logits[others], member[others])
    np.testing.assert_array_equal(scores["lira_online"][2], expected)
    logits[3] += 100
    np.testing.assert_array_equal(attack_scores(logits, member, pairs)["lira_online"][2], expected)
    assert not np.array_equal(
        attack_scores(logits, member, pairs)["lira_online"][4], scores["lira_online"][4]
    )


TRIALS = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=4, max_size=60
).filter(lambda rows: {inside for _, inside, weight in rows if weight} == {True, False})


@given(TRIALS)
def test_roc_counts_weighted_trials_at_every_distinct_score(
    rows: list[tuple[int, bool, int]],
) -> None:
    scores, inside, weights = (np.array(column) for column in zip(*rows, strict=True))
    fpr, tpr, thresholds = roc(scores, inside, weights)
    np.testing.assert_array_equal(thresholds[1:], np.unique(scores[weights > 0])[::-1])
    assert (fpr[0], tpr[0]) == (0, 0)
    for rates, chosen in ((fpr, ~inside), (tpr, inside)):
        shares = [
            (weights * chosen * (scores >= threshold)).sum() / (weights * chosen).sum()
            for threshold in thresholds
        ]
        np.testing.assert_allclose(rates, shares)


def test_true_positive_rates_by_hand() -> None:
    scores = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1], float)
    inside = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0], bool)
    fpr, tpr, _ = roc(scores, inside)
    assert [tpr_at(fpr, tpr, limit) for limit in (0.0, 0.19, 0.2, 0.6, 1.0)] == [
        0.5,
        0.5,
        0.75,
        1.0,
        1.0,
    ]
    assert best_threshold(scores, inside) == 6
    called = scores >= 6
    assert balanced_accuracy(called, inside, np.ones(9)) == pytest.approx(
        balanced_accuracy_score(inside, called)
    )
    assert tpr_at(*roc(-scores, inside)[:2], 0.01) == 0


def test_a_threshold_is_chosen_on_the_other_pairs() -> None:
    member, pairs, _ = half_splits(20, 6)
    scores = np.where(member, 1.0, 0.0)
    scores[:2] = -scores[:2]
    found = calls(scores, member, pairs)
    assert not found[:2].any()  # by the others' threshold of 1
    scores[:2] = np.where(member[:2], 5.0, -5.0)
    np.testing.assert_array_equal(calls(scores, member, pairs), member)


def leaky(images: int, shadows: int, leak: float, seed: int, draws: int = 200) -> dict[str, dict]:
    """What the attacks find where members' logit confidences are higher by `leak`, other things
    varying by about 1.
    """
    member, pairs, labels = half_splits(images, shadows, seed)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, images)) * 2 + rng.normal(size=member.shape) + leak * member
    scores = attack_scores(logits, member, pairs)
    return {
        name: measure(values, member, labels, pairs, draws, seed) for name, values in scores.items()
    }


def test_nothing_is_found_where_nothing_leaks() -> None:
    for attack in leaky(160, 10, 0.0, 0).values():
        assert attack["auc"]["low"] < 0.5 < attack["auc"]["high"]
        assert attack["tpr_at_1_in_100"]["low"] < 0.01 + 0.01
        assert abs(attack["balanced_accuracy"]["value"] - 0.5) < 0.04


def test_no_attack_is_above_or_below_chance_on_average_where_nothing_leaks() -> None:
    runs = [leaky(60, 6, 0.0, seed, draws=2) for seed in range(40)]
    for name in runs[0]:
        for number in ("auc", "balanced_accuracy"):
            values = np.array([run[name][number]["value"] for run in runs])
            assert abs(values.mean() - 0.5) < 3.5 * values.std() / np.sqrt(len(values))


def test_a_large_leak_is_found_and_lira_finds_more_than_one_threshold_for_all_images() -> None:
    found = leaky(160, 10, 4.0, 1)
    assert found["lira_online"]["auc"]["low"] > 0.97
    assert found["lira_online"]["tpr_at_1_in_100"]["value"] > 0.8
    assert found["lira_online"]["balanced_accuracy"]["value"] > 0.93
    for measured in ("auc", "tpr_at_1_in_100"):
        values = [
            found[name][measured]["value"] for name in ("threshold", "lira_offline", "lira_online")
        ]
        assert values == sorted(values)


@pytest.mark.parametrize(
    ("images", "known"), [(30, (False, False)), (40, (False, True)), (400, (True, True))]
)
def test_a_false_positive_rate_below_one_trial_is_not_resolved(
    images: int, known: tuple[bool, bool]
) -> None:
    found = leaky(images, 6, 1.0, 0)["lira_online"]
    assert (found["tpr_at_1_in_1000"] is not None, found["tpr_at_1_in_100"] is not None) == known
    for interval in found.values():
        assert interval is None or interval["low"] <= interval["value"] <= interval["high"]


def test_intervals_are_over_images_so_that_repeated_shadows_make_none_narrower() -> None:
    member, pairs, labels = half_splits(80, 6)
    scores = np.random.default_rng(0).normal(size=member.shape) + member
    once = measure(scores, member, labels, pairs, 100, 0)
    twice = measure(
        np.tile(scores, (2, 1)), np.tile(member, (2, 1)), labels, np.tile(pairs, 2), 100, 0
    )
    for name in ("auc", "tpr_at_1_in_100", "balanced_accuracy"):
        assert twice[name] == pytest.approx(once[name])
    assert once["tpr_at_1_in_1000"] is twice["tpr_at_1_in_1000"] is None


def test_tables_in_any_order_give_the_same_metrics() -> None:
    member, _, labels = half_splits(40, 6)
    rng = np.random.default_rng(0)
    keys = [f"k{number}" for number in range(40)]
    tables = [
        pd.DataFrame(
            {
                "arm": arm,
                "shadow": number,
                "key": keys,
                "label": labels,
                "logit": rng.normal(size=40) + leak * own,
            }
        )
        for number, own in enumerate(member)
        for arm, leak in (("real", 3.0), ("synthetic", 0.0))
    ]
    by_shadow = [pd.concat(tables[2 * number : 2 * number + 2]) for number in range(6)]
    members = pd.DataFrame(
        [(s, keys[i]) for s, i in zip(*np.nonzero(member), strict=True)], columns=["shadow", "key"]
    )
    metrics, curves = infer(by_shadow, members, 50, 0)
    shuffled = [
        table.sort_values(["arm", "logit"], ascending=[True, False]) for table in by_shadow[::-1]
    ]
    assert infer(shuffled, members[::-1], 50, 0)[0] == metrics
    assert {name: metrics[name] for name in ("shadows", "images", "trials")} == {
        "shadows": 6,
        "images": 40,
        "trials": 120,
    }
    assert metrics["arms"]["real"]["lira_online"]["auc"]["low"] > 0.9
    interval = metrics["arms"]["synthetic"]["lira_online"]["auc"]
    assert interval["low"] < 0.5 < interval["high"]
    own = curves[(curves["arm"] == "real") & (curves["attack"] == "threshold")]
    assert auc(own["fpr"], own["tpr"]) == pytest.approx(
        metrics["arms"]["real"]["threshold"]["auc"]["value"], abs=1e-4
    )


def test_without_shadows_nothing_is_measured() -> None:
    metrics, curves = infer([], pd.DataFrame(columns=["shadow", "key"]), 50, 0)
    assert metrics == {"shadows": 0, "images": 0, "trials": 0, "arms": {}}
    assert curves.empty
    assert list(curves) == ["arm", "attack", "fpr", "tpr"]

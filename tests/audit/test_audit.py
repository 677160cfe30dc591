"""The audit on planted sets: gaps, probes, two-sample test, learning curves and gates find what was
put there.
"""

import numpy as np
import pytest

from truelike.audit.appearance import STATISTICS, low_level, standardised_differences
from truelike.audit.audit import Findings, audit
from truelike.audit.coverage import manifold_metrics
from truelike.audit.estimates import Estimate, pool
from truelike.audit.gaps import GAPS
from truelike.audit.probes import (
    few_shot_hits,
    fit_probe,
    leep,
    probe_probabilities,
    two_sample_hits,
)
from truelike.audit.samples import Features, class_sample
from truelike.audit.scaling import PowerLaw, curve_sizes, fit_power_law, real_equivalent
from truelike.audit.settings import Gates
from truelike.reporting.gates import breaches


def planted(
    name: str, seed: int, size: int, spread: float = 1.0, shift: float = 0.0, wrong: int = 0
) -> Features:
    """Two classes 4 apart in three dimensions; `shift` moves the other three, `wrong` labels are of
    the other class.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    values = rng.normal(size=(size, 6)) * spread + np.repeat([0, shift], 3)
    values[:, :3] += 4 * labels[:, None]
    low = rng.normal(size=(size, 3)) + shift
    given = np.where(np.arange(size) < wrong, 1 - labels, labels)
    keys = [f"{name}{row}" for row in range(size)]
    return Features(keys, keys, given, values.astype(np.float32), low)


@pytest.fixture(scope="module")
def sets() -> dict[str, Features]:
    synthetic = planted("s", 3, 60)
    synthetic.values[7] = planted("t", 0, 60).values[9]
    return {
        "naive": planted("n", 2, 60, spread=0.01, shift=2.0, wrong=15),
        "synthetic": synthetic,
        "real": planted("h", 1, 100),
    }


def run(sets: dict[str, Features]) -> Findings:
    train = planted("t", 0, 60)
    return audit(train, train.values, sets, ["a", "b"], neighbours=5, bootstrap=40, seed=0)


@pytest.fixture(scope="module")
def findings(sets: dict[str, Features]) -> Findings:
    return run(sets)


def test_audit_finds_a_copy_a_collapsed_set_and_the_baseline(findings: Findings) -> None:
    real, naive = findings.measures["real"], findings.measures["naive"]
    for name in ("coverage", "vendi", "leep"):
        assert naive[name].value < real[name].value
    for name in (
        "frechet",
        "kernel",
        "kernel_rbf",
        "two_sample",
        "label_error",
        "low_level_difference",
    ):
        assert naive[name].value > real[name].value
    assert real["near_copy_rate"].value == pytest.approx(0.01)
    worst = findings.near_copies[findings.near_copies["set"] == "synthetic"].iloc[0]
    assert (worst["key"], worst["nearest_key"]) == ("s7", "t9")
    assert findings.near_copies["similarity"].is_monotonic_decreasing


def test_every_measure_lies_in_its_interval_and_the_same_seed_gives_the_same(
    findings: Findings, sets: dict[str, Features]
) -> None:
    for measures in findings.measures.values():
        for interval in measures.values():
            assert interval.low <= interval.high
        for name in measures.keys() - {"real_equivalent"}:
            assert (
                measures[name].low - 1e-9 <= measures[name].value <= measures[name].high + 1e-9
            ), name
    assert run(sets).numbers() == findings.numbers()


def test_a_pool_has_the_mean_and_the_resamples_of_all_subsamples() -> None:
    parts = [Estimate(0.25, np.array([0.2, 0.3])), Estimate(0.75, np.array([0.7, 0.8]))]
    pooled = pool(parts)
    assert isinstance(pooled, Estimate)
    assert pooled.value == 0.5
    assert pooled.draws.tolist() == [0.2, 0.3, 0.7, 0.8]
    assert pooled.interval.low < 0.25 < 0.75 < pooled.interval.high
    assert pool([1.0, 2.0]) == 1.5
    assert pool([None, None]) is None
    assert pool([parts[0], None]) is None


def test_measures_hardly_depend_on_the_subsample_of_a_large_set() -> None:
    large = {"synthetic": planted("s", 3, 600, spread=0.6), "real": planted("h", 1, 600)}
    train = planted("t", 0, 60)
    found = [audit(train, train.values, large, ["a", "b"], 5, 40, seed) for seed in range(3)]
    coverages = [findings.measures["synthetic"]["coverage"].value for findings in found]
    singles = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = class_sample(large["synthetic"], np.array([30, 30]), rng)
        singles.append(manifold_metrics(train.values, sample.values, 5)["coverage"].mean())
    assert np.ptp(coverages) < np.ptp(singles) / 2
    assert np.mean(coverages) == pytest.approx(np.mean(singles), abs=0.03)


def third_class(name: str, size: int) -> Features:
    """`planted` with a third class, far from the other two."""
    two, third = planted(name, 0, size), planted(f"{name}x", 1, size // 2)
    third.values[:] += 20
    return Features(
        two.keys + third.keys,
        two.sources + third.sources,
        np.concatenate([two.labels, np.full(size // 2, 2)]),
        np.concatenate([two.values, third.values]),
        np.concatenate([two.low_level, third.low_level]),
    )


def test_a_class_without_synthetic_images_makes_no_label_wrong() -> None:
    train, real = third_class("t", 60), third_class("h", 60)
    sets = {"synthetic": planted("s", 3, 60), "real": real}
    names = ["a", "b", "c"]
    found = audit(train, train.values, sets, names, neighbours=5, bootstrap=40, seed=0)
    assert found.measures["real"]["label_error"].value < 0.1
    one = sets["synthetic"].take(np.flatnonzero(sets["synthetic"].labels == 0))
    alone = audit(
        train, train.values, {"synthetic": one, "real": real}, names, 5, bootstrap=40, seed=0
    )
    for name in ("label_error", "probe_accuracy", "leep"):
        assert alone.measures["synthetic"][name] is None
    assert "synthetic" not in set(alone.curves["set"])


def test_gaps_are_zero_for_a_set_like_the_real_one_and_large_for_another(
    findings: Findings,
) -> None:
    assert findings.gaps.keys() == GAPS.keys()
    for gap in findings.gaps.values():
        assert set(gap) == {"naive", "synthetic"}
        assert gap["naive"].low > 0
    for name in ("content", "label", "two_sample"):
        assert findings.gaps[name]["synthetic"].low <= 0.05
    content = findings.gaps["content"]["naive"].value
    assert content == pytest.approx(
        findings.measures["real"]["coverage"].value - findings.measures["naive"]["coverage"].value
    )
    assert findings.gaps["label"]["naive"].value == pytest.approx(0.25, abs=0.02)


def test_per_class_table_has_every_measure_and_intervals_of_rates(findings: Findings) -> None:
    table = findings.per_class.set_index(["set", "class_name", "metric"])
    assert table.loc[("real", "b", "images"), "value"] == 50
    row = table.loc[("naive", "a", "coverage")]
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert (
        table.loc[("naive", "a", "two_sample"), "value"]
        > table.loc[("real", "a", "two_sample"), "value"]
    )
    assert np.isfinite(table.loc[("synthetic", "a", "vendi"), "value"])


def test_classes_too_small_for_a_neighbourhood_are_left_out() -> None:
    small = planted("x", 0, 4)
    findings = audit(
        small, small.values, {"real": small}, ["x", "y"], neighbours=5, bootstrap=5, seed=0
    )
    assert findings.measures["real"]["coverage"] is None
    assert findings.measures["real"]["two_sample"] is None
    assert findings.per_class.query("metric == 'coverage'")["value"].isna().all()


def test_two_sample_hits_are_chance_for_one_distribution_and_all_for_two() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    assert two_sample_hits(first, second, 0).mean() == pytest.approx(0.5, abs=0.07)
    assert two_sample_hits(first, second + 8, 0).all()


def test_a_probe_gives_classes_it_never_saw_no_probability() -> None:
    train = planted("t", 0, 40)
    labels = np.where(train.labels == 1, 2, 0)
    probabilities = probe_probabilities(fit_probe(train.values, labels), train.values, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities[:, [1, 3]] == 0).all()
    assert (probabilities.argmax(1) == labels).all()


def test_few_shot_probes_see_as_many_images_as_asked_and_larger_ones_the_same(monkeypatch) -> None:
    seen = []

    def spy(features: np.ndarray, labels: np.ndarray):
        seen.append({tuple(row) for row in features})
        assert np.bincount(labels).tolist() == [len(labels) // 2] * 2
        return fit_probe(features, labels)

    monkeypatch.setattr("truelike.audit.probes.fit_probe", spy)
    train, test = planted("t", 0, 20), planted("h", 1, 30)
    hits = few_shot_hits(
        (train.values, train.labels), (test.values, test.labels), [1, 3, 10], 2, seed=0
    )
    assert hits.shape == (3, 2, 30)
    assert set(np.unique(hits)) <= {0, 100}
    assert [len(rows) for rows in seen] == [2, 6, 20] * 2
    assert seen[0] < seen[1] < seen[2]
    assert seen[0] != seen[3]


def test_curve_sizes() -> None:
    assert curve_sizes(np.repeat([0, 1], [16, 20])) == [1, 2, 4, 8, 16]
    assert curve_sizes(np.repeat([0, 1], 90)) == [1, 2, 4, 8, 16, 32, 64, 90]
    assert curve_sizes(np.repeat(np.arange(1000), 50)) == [1, 2, 4, 8, 16, 20]


@pytest.mark.parametrize(
    "law", [PowerLaw(60, 0.5, 10), PowerLaw(80, 0.3, 0.5), PowerLaw(40, 1.0, 20)]
)
def test_a_power_law_is_recovered_and_inverted(law: PowerLaw) -> None:
    sizes = np.array([1, 2, 4, 8, 16, 32])
    fitted = fit_power_law(sizes, law.accuracy(sizes))
    np.testing.assert_allclose(fitted.accuracy(sizes), law.accuracy(sizes), atol=0.05)
    assert fitted.size(float(law.accuracy(np.array([11]))[0])) == pytest.approx(11, rel=0.02)
    assert PowerLaw(60, 0.5, 10).size(95) == np.inf


def test_the_interval_of_the_real_equivalent_size_covers_the_truth() -> None:
    law, sizes = PowerLaw(60, 0.5, 10), np.array([1, 2, 4, 8, 16])
    target, noise, inside = float(law.accuracy(np.array([10]))[0]), 0.5, 0
    rng = np.random.default_rng(0)
    for _ in range(25):
        seen, reached = law.accuracy(sizes) + rng.normal(0, noise, 5), target + rng.normal(0, noise)
        curves = [fit_power_law(sizes, seen + rng.normal(0, noise, 5)) for _ in range(30)]
        draws = reached + rng.normal(0, noise, 30)
        worth = real_equivalent(fit_power_law(sizes, seen), curves, reached, draws, 64, 0.95)
        inside += worth.low <= 10 <= worth.high
    assert inside >= 20
    never = real_equivalent(law, [law], 99.0, np.array([99.0]), 64, 0.95)
    assert never.value == never.high == 64


def test_leep_by_hand() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert leep(certain, np.array([0, 1, 0])) == pytest.approx(0)
    # both images of class 0 and one of class 1 are taken for z = 0: P(0 | z0) = 2/3, P(1 | z0) =
    # 1/3
    assert leep(np.array([[1.0, 0.0]] * 3), np.array([0, 0, 1])) == pytest.approx(
        (2 * np.log(2 / 3) + np.log(1 / 3)) / 3
    )
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
    given_0, given_1 = (
        np.array([0.8, 0.4]) / 1.2,
        np.array([0.2, 0.6]) / 0.8,
    )  # P(y | z) of y = 0, 1
    expected = np.log(
        [0.8 * given_0[0] + 0.2 * given_1[0], 0.4 * given_0[1] + 0.6 * given_1[1]]
    ).mean()
    assert leep(probabilities, np.array([0, 1])) == pytest.approx(expected)


def test_low_level_statistics_by_hand() -> None:
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    pixels[1, ..., 0] = 255  # red
    pixels[2, ::2] = 255  # stripes at the Nyquist frequency
    pixels[3, :8] = 255  # two halves
    table = dict(zip(STATISTICS, low_level(pixels).T, strict=True))
    assert table["red"].tolist() == [0, 1, 0.5, 0.5]
    assert table["blue"].tolist() == [0, 0, 0.5, 0.5]
    assert table["saturation"].tolist() == [0, 1, 0, 0]
    assert table["contrast"] == pytest.approx([0, 0, 0.5, 0.5])
    assert table["frequency"][2] == pytest.approx(0, abs=1e-6)  # all of it is high
    assert table["frequency"][3] < np.log(0.2)
    assert table["sharpness"][2] == pytest.approx(np.log(4), abs=1e-6)  # the Laplacian is 2 or -2


def test_standardised_differences_by_hand() -> None:
    real, fake = np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])
    counts = np.array([[1, 1], [2, 0]]), np.array([[1, 1], [1, 1]])
    found = standardised_differences(real, fake, counts)
    assert found[:, 0] == pytest.approx([3 / 1, 4 / np.sqrt(0.5)])


LIMITS = {"max_near_copy_rate": None, "max_tpr": None, "min_coverage": None, "min_gain": None}
LEAKS = {
    "arms": {
        "real": {"lira_online": {"tpr_at_1_in_100": {"value": 0.9}}},
        "mixed": {
            "lira_online": {"tpr_at_1_in_100": {"value": 0.2}},
            "threshold": {"tpr_at_1_in_100": {"value": 0.3}},
        },
    }
}


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        ({}, []),
        ({"max_near_copy_rate": 0.02, "min_coverage": 0.6, "min_gain": 1.5}, []),
        (
            {"max_near_copy_rate": 0.01},
            [
                "max_near_copy_rate: the near-copy rate of the synthetic set is 0.02, the limit is "
                "0.01"
            ],
        ),
        ({"max_tpr": 0.3}, []),
        (
            {"max_tpr": 0.25},
            [
                "max_tpr: the largest TPR of membership inference at 1 % FPR is 0.3, the limit is "
                "0.25"
            ],
        ),
        (
            {"min_coverage": 0.7, "min_gain": 2.0},
            ["is 0.6, the limit is 0.7", "is 1.5, the limit is 2"],
        ),
    ],
)
def test_gates(limits: dict[str, float], lines: list[str]) -> None:
    audited = {
        "measures": {"synthetic": {"near_copy_rate": {"value": 0.02}, "coverage": {"value": 0.6}}}
    }
    found = breaches(
        Gates.model_validate(LIMITS | limits), {"verdict": {"points": 1.5}}, audited, LEAKS
    )
    assert len(found) == len(lines)
    assert all(line in text for line, text in zip(lines, found, strict=True))


def test_a_gate_that_could_not_be_measured_is_breached() -> None:
    audited = {"measures": {"synthetic": {"near_copy_rate": {"value": 0.0}, "coverage": None}}}
    gates = Gates.model_validate(LIMITS | {"min_coverage": 0.5, "min_gain": 0.0})
    assert len(breaches(gates, {"verdict": {"points": None}}, audited, LEAKS)) == 2
    few = {"arms": {"mixed": {"threshold": {"tpr_at_1_in_100": None}}}}
    for unmeasured in (few, {"arms": {}}, {"arms": {"real": LEAKS["arms"]["real"]}}):
        found = breaches(
            Gates.model_validate(LIMITS | {"max_tpr": 1.0}),
            {"verdict": {"points": 1}},
            audited,
            unmeasured,
        )
        assert "could not be measured" in found[0]

"""Allocation: budgets are spent exactly, replicas are independent, and no judge has seen what it
judges.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.jobs import OFF, PROMPTS, SETTINGS
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_column, write_table
from truelike.runtime.errors import TruelikeError
from truelike.sharing.export import export
from truelike.sharing.trace import trace
from truelike.synthesis import judging
from truelike.synthesis.allocation import (
    POINTS,
    Judged,
    apportion,
    fill,
    quotas,
    write_allocations,
)
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.plan import Learned, image_seed, make_plan
from truelike.synthesis.regenerate import regenerate
from truelike.synthesis.run import replica_key, synthesize
from truelike.synthesis.settings import JudgeSettings, Policy
from truelike.training.settings import Optimization

ROOT = Path(__file__).resolve().parents[2]
POLICIES: list[Policy] = ["each", "balanced", "unlearned", "uncertain"]
OPTIMIZATION: Optimization = load_params(ROOT / "recipes/default.yaml").train.optimization


def judged(count: int) -> Judged:
    rng = np.random.default_rng(count)
    return Judged(rng.random((POINTS, count)) < 0.7, rng.random(count))


@given(
    st.sampled_from(POLICIES),
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(1, 100),
    st.integers(0, 9),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=200)
def test_any_policy_spends_the_budget_exactly(policy, labels, budget, replica, seed):
    amounts = quotas(policy, np.array(labels), budget, replica, judged(len(labels)))
    assert amounts.sum() == pytest.approx(budget)
    assert amounts.min() >= 0
    keys = [f"k{number}" for number in range(len(labels))]
    counts = apportion(amounts, keys, seed, replica)
    assert counts.sum() == budget
    assert (np.abs(counts - amounts) < 1 + 1e-6).all()
    assert (counts[amounts == 0] == 0).all()
    assert apportion(amounts[::-1], keys[::-1], seed, replica).tolist() == counts[::-1].tolist()


def test_over_replicas_each_image_gets_its_amount():
    amounts = np.array([0.25, 0.5, 1.25, 2.0])
    counts = [apportion(amounts, list("abcd"), 0, replica) for replica in range(400)]
    np.testing.assert_allclose(np.mean(counts, 0), amounts, atol=0.07)


def test_one_image_of_each_is_one_image_of_each():
    amounts = quotas("each", np.zeros(1000, int), 1000, 3, None)
    keys = [str(number) for number in range(1000)]
    assert (apportion(amounts, keys, 5, 3) == 1).all()


def test_levels_by_hand():
    sizes = np.array([4, 1, 0, 2])
    assert fill(sizes, 1).tolist() == [0, 1, 0, 0]
    assert fill(sizes, 2).tolist() == [0, 1.5, 0, 0.5]
    assert fill(sizes, 8).tolist() == [1, 4, 0, 3]
    assert fill(sizes, 0).tolist() == [0, 0, 0, 0]


def test_balanced_replicas_fill_the_tail_first_and_then_all_alike():
    labels = np.repeat([0, 1], [12, 4])
    by_class = [
        np.bincount(labels, quotas("balanced", labels, 8, replica, None)) for replica in range(3)
    ]
    np.testing.assert_allclose(by_class, [[0, 8], [4, 4], [4, 4]])
    amounts = quotas("balanced", labels, 8, 0, None)
    assert set(amounts[labels == 1]) == {2.0}


def test_an_image_is_learned_when_its_prediction_is_and_stays_right():
    columns = ["1111111111", "0111111111", "1111101111", "1111111110", "0000000000", "0000000001"]
    right = np.array([[point == "1" for point in points] for points in columns]).T
    assert Judged(right, np.zeros(6)).learned.tolist() == [1, 2, 7, 11, 11, 10]
    amounts = quotas("unlearned", np.zeros(6, int), 8, 0, Judged(right, np.zeros(6)))
    assert amounts.tolist() == [0, 0, 2, 2, 2, 2]


def test_uncertain_images_get_more_in_proportion():
    entropy = np.array([0.0, 0.1, 0.3])
    known = Judged(np.ones((POINTS, 3), bool), entropy)
    labels = np.zeros(3, int)
    np.testing.assert_allclose(quotas("uncertain", labels, 4, 0, known), [0, 1, 3])
    assert quotas("unlearned", labels, 6, 0, known).tolist() == [2, 2, 2]  # all are learned
    sure = replace(known, entropy=np.zeros(3))
    assert quotas("uncertain", labels, 6, 0, sure).tolist() == [2, 2, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_replicas_table_does_not_depend_on_the_others(policy, real, tmp_path):
    chosen = SETTINGS.model_copy(update={"allocation": policy, "budget": 7, "replicas": (2,)})
    write_allocations(real, chosen, judged(len(real)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "2.parquet"]
    alone = (tmp_path / "2.parquet").read_bytes()
    table = pd.read_parquet(tmp_path / "2.parquet")
    assert table["key"].tolist() == real.keys
    assert table["count"].sum() == 7
    assert (table["reason"] != "").all() == (policy != "each")
    more = chosen.model_copy(update={"replicas": (1, 2, 5)})
    write_allocations(real, more, judged(len(real)), tmp_path)
    assert (tmp_path / "2.parquet").read_bytes() == alone
    write_allocations(real, chosen, judged(len(real)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


# Judges


def test_no_judge_has_trained_on_what_it_judges(real, classifier, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    number = {pixels.tobytes(): row for row, pixels in enumerate(real.load())}
    seen: list[set[int]] = []
    asked: list[set[int]] = []

    def rows(images) -> set[int]:
        return {number[pixels.tobytes()] for pixels in images.pixels}

    def fit(open_network, sources, phases, optimization, seed, look):
        seen.append(rows(sources(phases[0])[0]))
        network = open_network()
        look((0, 0, 0.0, 0.0))
        return network

    def predict(model, images):
        asked.append(rows(images))
        return np.full((len(images), 2), 0.5, np.float32)

    monkeypatch.setattr(judging, "fit", fit)
    monkeypatch.setattr(judging, "predict", predict)
    monkeypatch.setattr(judging, "open_classifier", lambda *_: judging.nn.Identity())
    found = judging.judge_out_of_fold(
        real, classifier, OPTIMIZATION, JudgeSettings(folds=3, steps=9), 0
    )
    assert len(seen) == 3
    assert all(not own & held for own, held in zip(seen, asked[::2], strict=True))
    assert asked[::2] == asked[1::2]
    assert sorted(row for held in asked[::2] for row in held) == list(range(len(real)))
    assert all(len({real.labels[row] for row in own}) == 2 for own in seen)
    np.testing.assert_allclose(found.entropy, np.log(2), rtol=1e-6)


def test_judges_of_a_killed_run_are_used_again(real, classifier, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    few = OPTIMIZATION.model_copy(update={"batch_size": 4})
    judge = JudgeSettings(folds=2, steps=3)
    first = judging.judge_out_of_fold(real, classifier, few, judge, 1)
    assert first.right.shape == (POINTS, 10)
    assert ((first.entropy > 0) & (first.entropy <= np.log(2) + 1e-6)).all()
    monkeypatch.setattr(judging, "fit", None)
    again = judging.judge_out_of_fold(real, classifier, few, judge, 1)
    np.testing.assert_array_equal(again.entropy, first.entropy)
    np.testing.assert_array_equal(again.right, first.right)
    with pytest.raises(TypeError):  # another seed has other folds
        judging.judge_out_of_fold(real, classifier, few, judge, 2)


# Images of an allocation


def plan(counts: list[int] | None, rewrites: list[str] | None = None) -> pd.DataFrame:
    table = pd.DataFrame({"key": ["a", "b", "c"], "label": 0, "class_name": "boot", "style": ""})
    table["caption"] = "red"
    table["rewrites"] = pd.Series([rewrites or []] * 3, dtype=object)
    return make_plan(table, PROMPTS, SETTINGS, OFF, 4, Learned("g"), counts)


def test_at_most_one_image_of_each_is_as_without_allocation():
    pd.testing.assert_frame_equal(plan([1, 1, 1]), plan(None))
    fewer = plan(None).iloc[[0, 2]].reset_index(drop=True)
    pd.testing.assert_frame_equal(plan([1, 0, 1]), fewer)


def test_several_images_of_one_source_have_identities_of_their_own():
    rows, one = plan([3, 0, 1], ["x", "y"]), plan(None, ["x", "y"])
    assert rows["key"].tolist() == ["a-r4", "a-r4-1", "a-r4-2", "c-r4"]
    assert rows["source_key"].tolist() == ["a", "a", "a", "c"]
    assert rows["draw"].tolist() == [0, 1, 2, 0]
    assert rows["caption_key"].tolist() == ["a/0", "a/1", "a/0", "c/0"]
    assert rows["seed"].tolist() == [image_seed(0, 4, "a", n) for n in range(3)] + [one["seed"][2]]
    assert rows["seed"].is_unique


@pytest.fixture
def allocated(job: SynthesisJob, real: ImageSet, tmp_path: Path) -> SynthesisJob:
    """A job whose first real images give 0, 1 and 3 images."""
    counts = [0, 1, 3, *[0] * (len(real) - 3)]
    table = pd.DataFrame({"key": real.keys, "count": counts, "reason": ""})
    write_table(tmp_path / "outputs/allocation/0.parquet", table)
    return replace(job, allocation=tmp_path / "outputs/allocation")


def test_images_of_an_allocation_are_sound_and_come_again(allocated, real, tmp_path):
    folder = tmp_path / "outputs/synthetic/0"
    synthesize(allocated, 0, folder)
    made = ImageSet(folder)
    first, second = real.keys[1:3]
    assert made.keys == [f"{first}-r0", f"{second}-r0", f"{second}-r0-1", f"{second}-r0-2"]
    assert made.problems() == []
    assert made.index["sha256"].is_unique
    for position, key in enumerate(made.keys):
        np.testing.assert_array_equal(regenerate(allocated, folder, key), made.pixels(position))
    found = trace(second, [real.folder, folder])
    assert found["key"].tolist() == [second, *made.keys[1:]]
    assert export(folder, tmp_path / "exported") == 4
    table = pd.read_parquet(tmp_path / "outputs/allocation/0.parquet")
    before = replica_key(allocated, 0)
    table["count"] = table["count"].where(table["count"] < 3, 1)
    write_table(tmp_path / "outputs/allocation/0.parquet", table)
    assert replica_key(allocated, 0) != before
    with pytest.raises(TruelikeError, match="to which the allocation gives fewer images"):
        regenerate(allocated, folder, made.keys[3])


def test_counts_are_those_of_the_images_key(allocated, real):
    keys = [real.keys[2], real.keys[0]]
    assert read_column(allocated.allocation / "0.parquet", keys, "count") == [3, 0]

"""Choices depend on seed and image alone: stratified, nested, and untouched by other images."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truelike.runtime.errors import TruelikeError
from truelike.sources.split import distinct, few_shots, halves, hash_order, hold_out

POOLS = st.integers(2, 40).flatmap(
    lambda size: st.lists(st.sampled_from("abc"), min_size=size, max_size=size).map(
        lambda labels: [f"{label}/{number}" for number, label in enumerate(labels)]
    )
)
SEEDS = st.integers(0, 5)


def key(item: str) -> str:
    return item


def label(item: str) -> str:
    return item[0]


@given(POOLS, SEEDS)
def test_few_shots_are_nested_balanced_and_independent_of_order(pool, seed):
    four, rest = few_shots(pool, 4, key, label, seed)
    eight, _ = few_shots(list(reversed(pool)), 8, key, label, seed)
    assert set(four) <= set(eight)
    assert sorted(four + rest) == sorted(pool)
    available = Counter(map(label, pool))
    assert Counter(map(label, four)) == {name: min(4, count) for name, count in available.items()}


@given(POOLS, SEEDS)
def test_another_image_moves_at_most_one_of_the_chosen(pool, seed):
    before, _ = few_shots(pool, 3, key, label, seed)
    after, _ = few_shots([*pool, "a/new"], 3, key, label, seed)
    assert len(set(before) - set(after)) <= 1
    assert set(after) - set(before) <= {"a/new"}


@given(st.integers(2, 60), st.floats(0.01, 0.99), SEEDS)
def test_hold_out_takes_the_fraction_of_each_class_and_leaves_some(size, fraction, seed):
    pool = [f"{name}/{number}" for name in "ab" for number in range(size)]
    kept, held = hold_out(pool, fraction, key, label, seed, "test")
    assert sorted(kept + held) == sorted(pool)
    counts = Counter(map(label, held))
    assert counts["a"] == counts["b"]
    assert 1 <= counts["a"] <= size - 1
    assert abs(counts["a"] - size * fraction) <= 1


def test_a_single_image_cannot_be_held_out():
    with pytest.raises(
        TruelikeError, match="class 'b' has 1 image, too few to hold one out for test"
    ):
        hold_out(["a/1", "a/2", "b/1"], 0.5, key, label, 0, "test")


def test_each_class_may_have_a_number_of_its_own():
    pool = [f"{name}/{number}" for name in "abc" for number in range(5)]
    chosen, rest = few_shots(pool, {"a": 1, "b": None, "c": 3}, key, label, 0)
    assert sorted(chosen + rest) == sorted(pool)
    assert [sum(label(item) == name for item in chosen) for name in "abc"] == [1, 5, 3]
    three, _ = few_shots(pool, 3, key, label, 0)
    assert {item for item in chosen if label(item) == "c"} == {
        item for item in three if label(item) == "c"
    }


def test_all_shots_and_seeds():
    pool = [f"a/{number}" for number in range(50)]
    assert few_shots(pool, None, key, label, 0) == (pool, [])
    assert set(few_shots(pool, 10, key, label, 0)[0]) != set(few_shots(pool, 10, key, label, 1)[0])
    assert hash_order(pool, key, 0, "order") != hash_order(pool, key, 0, "shots")


def test_distinct_reports_each_repetition():
    assert distinct(["a1", "b1", "a2", "a3"], lambda item: item[0]) == (
        ["a1", "b1"],
        [("a1", "a2"), ("a1", "a3")],
    )


@given(
    POOLS.filter(lambda pool: min(Counter(map(label, pool)).values()) >= 2),
    st.integers(0, 4),
    SEEDS,
)
def test_halves_share_out_every_class_and_the_odd_ones_by_turns(pool, pair, seed):
    first, second = halves(pool, pair, key, label, seed)
    assert sorted(first + second) == sorted(pool)
    counts = Counter(map(label, pool))
    for name, count in counts.items():
        assert Counter(map(label, first))[name] in (count // 2, count - count // 2)
    assert abs(len(first) - len(second)) <= 1
    assert halves(pool, pair, key, label, seed) == [first, second]


def test_pairs_and_seeds_have_halves_of_their_own_and_chance_decides():
    pool = [f"a/{number}" for number in range(40)]
    found = [
        frozenset(halves(pool, pair, key, label, seed)[0])
        for pair in range(10)
        for seed in range(5)
    ]
    assert len(set(found)) == len(found)
    seen = Counter(item for half in found for item in half)
    assert min(seen.values()) > 10  # of 50, at an expectation of 25
    assert max(seen.values()) < 40
    with pytest.raises(TruelikeError, match="class 'b' has 1 training image, too few to halve"):
        halves([*pool, "b/0"], 0, key, label, 0)

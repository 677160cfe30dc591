"""Which image is for what: pure functions that choose by a hash of seed and image, never by order.

An image's place in the hash order depends on the seed and its own key alone, so adding or removing
an image moves no others, and the few shots of a larger number contain those of a smaller one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from truelike.runtime.errors import TruelikeError

T = TypeVar("T")


def hash_order(items: Iterable[T], key: Callable[[T], str], seed: int, purpose: str) -> list[T]:
    """Shuffle items by the sha256 of (purpose, seed, key): independent of the order they come
    in.
    """
    return sorted(
        items, key=lambda item: hashlib.sha256(f"{purpose}\0{seed}\0{key(item)}".encode()).digest()
    )


def by_class(items: Iterable[T], label: Callable[[T], str]) -> dict[str, list[T]]:
    """Group items by class, in the order they come in."""
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[label(item)].append(item)
    return dict(groups)


def hold_out(
    items: Sequence[T],
    fraction: float,
    key: Callable[[T], str],
    label: Callable[[T], str],
    seed: int,
    purpose: str,
) -> tuple[list[T], list[T]]:
    """Split items into (kept, held out), the `fraction` of every class held out, at least one image
    on each side.

    Raises TruelikeError for a class with a single image.
    """
    kept: list[T] = []
    held: list[T] = []
    for name, group in by_class(items, label).items():
        if len(group) < 2:
            raise TruelikeError(
                f"class {name!r} has {len(group)} image, too few to hold one out for {purpose}; "
                f"add images or give the source a {purpose} folder"
            )
        count = min(max(round(len(group) * fraction), 1), len(group) - 1)
        ordered = hash_order(group, key, seed, purpose)
        held += ordered[:count]
        kept += ordered[count:]
    return kept, held


def few_shots(
    items: Sequence[T],
    shots: int | Mapping[str, int | None] | None,
    key: Callable[[T], str],
    label: Callable[[T], str],
    seed: int,
) -> tuple[list[T], list[T]]:
    """Split items into (`shots` of every class, or its own number of each, and the rest); all of a
    class that has fewer, all if `shots` is None.
    """
    if shots is None:
        return list(items), []
    chosen: list[T] = []
    rest: list[T] = []
    for name, group in by_class(items, label).items():
        ordered = hash_order(group, key, seed, "shots")
        count = shots[name] if isinstance(shots, Mapping) else shots
        count = len(ordered) if count is None else count
        chosen += ordered[:count]
        rest += ordered[count:]
    return chosen, rest


def halves(
    items: Sequence[T], pair: int, key: Callable[[T], str], label: Callable[[T], str], seed: int
) -> list[list[T]]:
    """Split items into the two halves of a pair, half of every class in each; other pairs split
    otherwise.

    The odd image of a class goes to one half or the other by turns. Raises TruelikeError for a
    class of one image.
    """
    both: list[list[T]] = [[], []]
    for name, group in by_class(items, label).items():
        if len(group) < 2:
            raise TruelikeError(
                f"class {name!r} has 1 training image, too few to halve; give at least 2"
            )
        ordered = hash_order(group, key, seed, f"half {pair}")
        middle = (len(group) + (len(both[0]) - pair % 2 < len(both[1]))) // 2
        both[0] += ordered[:middle]
        both[1] += ordered[middle:]
    return both


def distinct(
    items: Sequence[T], content: Callable[[T], Hashable]
) -> tuple[list[T], list[tuple[T, T]]]:
    """The first item of every content, and the (first, repeated) pairs of the others."""
    first: dict[Hashable, T] = {}
    repeated = []
    for item in items:
        known = first.setdefault(content(item), item)
        if known is not item:
            repeated.append((known, item))
    return list(first.values()), repeated

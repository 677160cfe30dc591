"""What docs/performance.md claims: each module runs both sides of one comparison,
``python -m benchmarks.NAME``.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import truelike  # noqa: F401  (first: it makes torchvision importable)

PAGE = Path("docs/performance.md")


class Cost(NamedTuple):
    """Seconds of wall clock, and of all processors together, children included."""

    wall: float
    cpu: float


def cost(run: Callable[[], object]) -> Cost:
    """What one call of `run` costs."""
    before, start = os.times(), time.perf_counter()
    run()
    wall, after = time.perf_counter() - start, os.times()
    return Cost(wall, sum(after[:4]) - sum(before[:4]))


def compare(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    measure: Callable[[Callable[[], object]], Cost] = cost,
) -> dict[str, Cost]:
    """The medians of `repeats` runs of every side, the sides taking turns so that a busy machine
    slows all alike.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            costs[name].append(measure(run))
    return {name: Cost(*map(median, zip(*runs, strict=True))) for name, runs in costs.items()}


def table(costs: Mapping[str, Cost], usual: str) -> list[str]:
    """The lines of a Markdown table of sides, and how many times faster each is than the side
    `usual`.
    """
    reference = costs[usual]
    lines = ["| | seconds | CPU seconds | times faster |", "|---|---|---|---|"]
    for name, spent in costs.items():
        lines.append(
            f"| {name} | {spent.wall:.2f} | {spent.cpu:.2f} | {reference.wall / spent.wall:.2f} |"
        )
    return lines


def write(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Print `lines`, and put them between ``<!-- name -->`` and ``<!-- end -->`` of the page if it
    has such markers.
    """
    text = "\n".join(lines)
    print(text)
    before, marker, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    if not marker:
        return
    page.write_text(
        f"{before}{marker}{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}", encoding="utf-8"
    )

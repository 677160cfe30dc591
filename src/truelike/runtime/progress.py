"""Progress of long work: a bar in a terminal; elsewhere, such as in a log, a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

from tqdm import tqdm

INTERVAL = 30.0  # seconds between lines
Item = TypeVar("Item")


class Bar:
    """Counts the items done of `total` and shows rate and time left on stderr, until it is closed.

    `done` items were made before. Nothing is shown unless `shown`.
    """

    def __init__(
        self, name: str, total: int, unit: str = "image", done: int = 0, shown: bool = True
    ) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self._before, self._start = done, time.monotonic()
        self._last = self._start
        in_terminal = sys.stderr.isatty()
        self._lines = shown and not in_terminal
        self._bar: Any = None
        if shown and in_terminal:
            self._bar = tqdm(desc=name, total=total, unit=unit, initial=done)

    def update(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._lines and count and time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> str:
        rate = (self.done - self._before) / (self._last - self._start)
        left = tqdm.format_interval((self.total - self.done) / rate)
        return (
            f"{self.name}: {self.done} of {self.total} {self.unit}s, {rate:.3g} a second, "
            f"{left} left"
        )


def track(
    items: Iterable[Item],
    name: str,
    total: int,
    unit: str = "image",
    done: int = 0,
    shown: bool = True,
) -> Iterator[Item]:
    """The items, with a bar that moves on when the next one is taken."""
    with Bar(name, total, unit, done, shown) as bar:
        for item in items:
            yield item
            bar.update()

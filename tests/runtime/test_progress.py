"""Progress without a terminal: a line now and then that names the work, and none for short work."""

import io
import re

import pytest

from truelike.runtime import progress
from truelike.runtime.progress import Bar, track


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_at_most_every_interval(clock, capsys):
    with Bar("adapt", 100, "step", done=40) as bar:
        for _ in range(60):
            clock[0] += 1
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "adapt: 70 of 100 steps, 1 a second, 00:30 left",
        "adapt: 100 of 100 steps, 1 a second, 00:00 left",
    ]


def test_short_or_hidden_work_is_silent(clock, capsys):
    assert list(track("abc", "embed", 3)) == ["a", "b", "c"]
    with Bar("adapt", 2, shown=False) as bar:
        clock[0] += 100
        bar.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_a_name(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert list(track(range(3), "embed", 5, done=2)) == [0, 1, 2]
    assert re.search(r"embed: 100%.* 5/5 ", terminal.getvalue())

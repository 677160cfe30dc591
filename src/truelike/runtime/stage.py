"""Runs a stage's main function as a process of its own, and reads its argument."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path

from truelike.runtime.errors import TruelikeError
from truelike.runtime.ledger import record
from truelike.runtime.outlook import outlook
from truelike.runtime.scratch import is_first, only_writer

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of what was freed, in blocks of up to 32 MiB: the next batch needs
    as much again.

    Given back, it would come zeroed from the kernel each time, which is a tenth of a small model's
    time on a CPU.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)


def say_what_next(name: str, number: int) -> None:
    """Tell a person whose stage was stopped; without Python's buffers, which a signal can find in
    use.
    """
    if is_first():
        text = (
            f"\n{name}: stopped by {signal.Signals(number).name}; what is finished is kept: "
            "`dvc repro`, or the same `dvc exp run`, goes on from there\n"
        )
        os.write(2, text.encode())


def named(parameter: str, names: Collection[str]) -> str:
    """The argument of a stage that runs once for each of the names that a parameter gives; raises
    TruelikeError unless it is one of them.
    """
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise TruelikeError(f"give one of {parameter}: {', '.join(names) or 'there is none'}")
    return sys.argv[1]


def numbered(parameter: str) -> int:
    """The argument of a stage that runs once for each of the numbers of a parameter; raises
    TruelikeError unless it is a number.
    """
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        raise TruelikeError(f"give one of the numbers of {parameter}")
    return int(sys.argv[1])


def run(stage: str, main: Callable[[], None]) -> None:
    """Run a stage's main function as a process: exit 1 with the message of a TruelikeError, record
    what it cost.

    A signal ends the process by that signal's default action or as an error, never with exit status
    0, which DVC would take for success. A killed `dvc` leaves its stage running: a second process
    of the same stage is refused.
    """
    gc.freeze()
    gc.enable()
    keep_freed_memory()
    name = "@".join([stage, *sys.argv[1:]])  # train@bridged, as DVC names it

    def stop(number: int, frame: object) -> None:
        say_what_next(name, number)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    if is_first() and (line := outlook(name)):
        print(line, file=sys.stderr, flush=True)
    try:
        with (
            only_writer(Path(".work/running") / name),
            record(name) if is_first() else nullcontext(),
        ):
            main()
    except TruelikeError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        say_what_next(name, signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

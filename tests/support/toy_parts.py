"""Parts of work for Ray's workers, which import no more than they need."""

import os
import signal
import time
from pathlib import Path

from truelike.runtime.errors import TruelikeError
from truelike.runtime.executor import Progress


class Toy:
    """A model that says how often it was opened, in a file per process."""

    def __init__(self, folder: Path) -> None:
        (folder / f"opened-{os.getpid()}").touch()
        self.folder = folder


def make_slowly(model: Toy, number: int, progress: Progress) -> list[bytes]:
    """A part that takes half a second, and notes the process and the node that make it."""
    (model.folder / f"part-{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    return [f"a{number}".encode(), bytes(300_000)]


def make_poison(model: Toy, number: int, progress: Progress) -> list[bytes]:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return [b"a", b"b"]


def make_mistake(model: Toy, number: int, progress: Progress) -> list[bytes]:
    raise TruelikeError("the caption is empty")

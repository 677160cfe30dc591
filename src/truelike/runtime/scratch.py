"""Work in progress that survives a killed stage: ``.work/<stage>/<fingerprint>/`` in the main
checkout.

DVC deletes a stage's outs before running it again, so whatever must outlive a kill is made in a
scratch folder and hardlinked into the out when the stage is done. The fingerprint covers everything
that decides the bytes; finished files are never reopened for writing, and used again only while
they match the sha256 that was noted when they were made.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from truelike.runtime.errors import TruelikeError
from truelike.runtime.rooms import LIBRARY, rooms_of


def scratch_root() -> Path:
    """``.work`` in DVC's main checkout (``DVC_ROOT``), or in the working directory without DVC."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


def fingerprint(settings: Any, *paths: str | Path) -> str:
    """Sixteen hex digits that change with the settings (JSON-able) or the content of a path."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in map(Path, paths):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" in file.parts:
                continue
            digest.update(f"{file.relative_to(path)}\0".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


PACKAGES = ("torch", "diffusers", "transformers", "peft", "timm", "numpy", "scikit-learn", "pillow")


def scratch_key(module: str, settings: Any, *inputs: str | Path) -> str:
    """The key of a scratch folder, sixteen hex digits: it changes with all that decides the bytes.

    That is the code of the rooms that `module` (the ``__file__`` of the code that makes them)
    imports, the settings (JSON-able), the content of the input files and directories, the versions
    of the libraries and the kind of machine.
    """
    from truelike.runtime.devices import device

    machine = [device().type, platform.machine(), *map(version, PACKAGES)]
    return fingerprint([settings, machine], *inputs, *(LIBRARY / room for room in rooms_of(module)))


def is_first() -> bool:
    """Whether this process writes: a stage's only one, or the first that torchrun launched."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


PATIENCE = 5.0  # seconds: the workers of a killed process notice its end a little later


@contextmanager
def only_writer(lock_file: Path) -> Iterator[None]:
    """Hold `lock_file` as the only process (with its forks).

    Raises TruelikeError if another process keeps it.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    if not is_first():
        yield
        return
    with lock_file.open("a+") as lock:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    holder = lock_file.read_text() or "unknown"
                    raise TruelikeError(
                        f"{lock_file}: process {holder}, or one that it started, is writing here, "
                        "perhaps left over "
                        "from a killed run; wait until it ends or stop it, then run again"
                    ) from None
                time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def scratch(stage: str, key: str) -> Iterator[Path]:
    """Open a stage's scratch folder of this key for one writer.

    Raises TruelikeError if it already has one.
    """
    folder = scratch_root() / stage / key
    with only_writer(folder / ".lock"):
        yield folder


CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a full disk, a quota or a read-only place as a TruelikeError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise TruelikeError(
            f"{path}: cannot be written ({os.strerror(error.errno)}); free space or make it "
            "writable, then run again: "
            "what is finished is kept"
        ) from error


def write_once(path: Path, write: Callable[[Path], object]) -> None:
    """Make `path` by ``write(partial)`` and a rename: it exists whole or not at all.

    Raises TruelikeError without space or permission, and leaves nothing behind.
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        try:
            write(partial)
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise


def write_finished(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` once, its sha256 noted beside it for `finished`.

    The note is made before the file appears and keeps what was noted earlier, so that a kill in
    between leaves the file as it was, finished or missing.
    """

    def write_and_note(partial: Path) -> None:
        write(partial)
        with _sums(path).open("a") as sums:
            sums.write(f"\n{sha256(partial)}")

    write_once(path, write_and_note)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an npz file of any name; numpy alone would add ``.npz`` to it."""
    with path.open("wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def finished(path: Path) -> bool:
    """Whether `path` is there with a sha256 that `write_finished` noted; says so if it differs."""
    if not path.is_file():
        return False
    if _sums(path).is_file() and sha256(path) in _sums(path).read_text().split():
        return True
    print(f"{path}: damaged, it does not match its sha256; it is made again", file=sys.stderr)
    return False


def discard(path: Path) -> None:
    """Remove what `write_finished` wrote, if it did."""
    for file in (path, _sums(path)):
        file.unlink(missing_ok=True)


def _sums(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def sha256(path: Path) -> str:
    """The sha256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(files: list[Path], out: Path) -> None:
    """Fill a stage's out directory with hardlinks to finished files, or copies where links fail."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for file in files:
            target = out / file.name
            target.unlink(missing_ok=True)
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)


def remove_stale(parent: Path, names: set[str]) -> None:
    """Remove subdirectories of `parent` not in `names`: outs that are no longer declared."""
    for child in parent.iterdir():
        if child.is_dir() and child.name not in names:
            shutil.rmtree(child)


def stack_on_disk(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape and type into one (N, ...) that is mapped from a file of the
    scratch folder.

    The system keeps as much of it in memory as there is room for, and forks share it. The file has
    no name: it is gone with the last process that uses it, however that ends. Of nothing, uint8 (0,
    1, 1, 3). Raises TruelikeError where there is no space, ValueError for arrays of several shapes.
    """
    root = scratch_root()
    shape, dtype, count = (1, 1, 3), np.dtype(np.uint8), 0
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            for array in arrays:
                if count and array.shape != shape:
                    raise ValueError(
                        f"all arrays must have one shape, found {shape} and {array.shape}"
                    )
                shape, dtype, count = array.shape, array.dtype, count + 1
                file.write(array.tobytes())
            file.flush()
            if not count:
                return np.zeros((0, *shape), dtype)
            return np.asarray(np.memmap(file, dtype, "c", shape=(count, *shape)))

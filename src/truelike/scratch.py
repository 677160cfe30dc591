"""Work in progress that survives a killed stage: ``.work/<stage>/<fingerprint>/`` in the main checkout.

DVC deletes a stage's outs before running it again, so whatever must outlive a kill is made in a scratch folder and
hardlinked into the out when the stage is done. The fingerprint covers everything that decides the bytes; finished files
are never reopened for writing.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from truelike.errors import TruelikeError


def scratch_root() -> Path:
    """``.work`` in DVC's main checkout (``DVC_ROOT``), or in the working directory outside of DVC."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


def fingerprint(settings: Any, *paths: str | Path) -> str:
    """Sixteen hex digits that change when a setting (JSON-able) or the content of a file or directory changes."""
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


@contextmanager
def scratch(stage: str, key: str) -> Iterator[Path]:
    """Open the scratch folder of a stage's fingerprint for one writer; raises TruelikeError if it already has one."""
    folder = scratch_root() / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TruelikeError(
                f"{folder}: another process is writing here, perhaps left over from a killed run; "
                "wait until it ends or stop it, then run again"
            ) from None
        yield folder


def write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` by calling ``write(partial)`` and renaming, so that it exists complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def publish(files: list[Path], out: Path) -> None:
    """Fill the stage's out directory with hardlinks to finished files (copies where links are not possible)."""
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = out / file.name
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def remove_stale(parent: Path, names: set[str]) -> None:
    """Remove the subdirectories of `parent` not in `names`: outs of stages that the parameters no longer declare."""
    for child in parent.iterdir():
        if child.is_dir() and child.name not in names:
            shutil.rmtree(child)

"""Removing damaged files of an image set where DVC would otherwise put them back."""

import hashlib
from pathlib import Path

from truelike.imageset.checks import SUMS_FILE, listed_sums
from truelike.imageset.reading import INDEX_FILE
from truelike.runtime.scratch import sha256


def discard_damaged(folder: Path) -> list[Path]:
    """Remove what is damaged in the image set in `folder`, and return the paths removed.

    A listed file that does not match ``SHA256SUMS`` is removed, and where DVC linked it from its
    cache, there too, or DVC would put the damaged bytes back; ``SHA256SUMS`` goes with it unless
    DVC's cache shows that it is sound. A file or link that is not listed is removed from the folder
    alone.
    Where ``SHA256SUMS`` is missing or does not list the index, nothing but itself is removed: it
    says nothing about the other files, and has to be restored first. `dvc checkout`, `dvc pull` or
    `dvc repro` then restore what is missing.
    """
    sums = folder / SUMS_FILE
    if not sums.is_file():
        return []
    listed = listed_sums(sums.read_bytes())
    if INDEX_FILE not in listed:
        return _remove([*_cached(sums), sums])
    others = [path for path in sorted(folder.iterdir()) if path.is_file() and path != sums]
    links = [path for path in folder.iterdir() if path.is_symlink()]
    stray = sorted(path for path in {*others, *links} if path.name not in listed)
    damaged = [path for path in others if path.name in listed and listed[path.name] != sha256(path)]
    if damaged and not _is_sound(sums):
        damaged.append(sums)
    return _remove([*stray, *(file for path in damaged for file in [*_cached(path), path])])


def _remove(paths: list[Path]) -> list[Path]:
    for path in paths:
        path.unlink()
    return paths


def _is_sound(path: Path) -> bool:
    """Whether `path` is an object of DVC's cache with the MD5 that its place there names."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return any(link.parent.name + link.name == digest for link in _cached(path))


def _cached(path: Path) -> list[Path]:
    """The objects in DVC's cache that are the same file as `path`."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(Repo.find_root(str(path.parent))) as repo:
            cache = Path(repo.cache.local.path)
    except NotDvcRepoError:
        return []
    return [file for file in cache.glob("*/*") if file.samefile(path)]

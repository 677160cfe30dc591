"""Removing damaged files of an image set where DVC would otherwise put them back."""

from pathlib import Path

from truelike.imageset.checks import SUMS_FILE, listed_sums
from truelike.runtime.scratch import sha256


def discard_damaged(folder: Path) -> list[Path]:
    """Remove the files of a set that do not match ``SHA256SUMS``, and it with them, and return
    their paths.

    A file that DVC linked into the workspace is the one in its cache: that link is removed too, or
    DVC would put the damaged bytes back. `dvc checkout`, `dvc pull` or `dvc repro` then restore
    what is missing and nothing else.
    """
    sums = folder / SUMS_FILE
    listed = listed_sums(sums.read_bytes()) if sums.is_file() else {}
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    damaged = [path for path in files if path != sums and listed.get(path.name) != sha256(path)]
    removed = []
    for path in [*damaged, *(path for path in files if path == sums)]:
        for link in [*_cached(path), path]:
            link.unlink()
            removed.append(link)
    return removed


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

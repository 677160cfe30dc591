"""From image sets to an image folder that any other tool reads."""

import re
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.errors import TruelikeError


def sets_in(path: Path) -> list[Path]:
    """The image set at `path`, or all below it (the replicas of ``outputs/synthetic``), replica 2
    before 10.

    Raises TruelikeError if there is none.
    """
    below = [path / INDEX_FILE] if (path / INDEX_FILE).is_file() else path.rglob(INDEX_FILE)
    folders = sorted(
        (index.parent for index in below), key=lambda p: (p.parent, len(p.name), p.name)
    )
    if not folders:
        raise TruelikeError(
            f"{path}: no image set here (no {INDEX_FILE}); run `dvc repro` or `dvc pull`"
        )
    return folders


def folder_names(class_names: Sequence[str]) -> list[str]:
    """One folder name per class that every file system allows, distinct even where case does not
    matter.
    """
    safe = [re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).rstrip(". ") or "_" for name in class_names]
    folded = [name.casefold() for name in safe]
    return [
        f"{name}_{label}" if folded.count(name.casefold()) > 1 else name
        for label, name in enumerate(safe)
    ]


def export(path: Path, target: Path) -> int:
    """Write the images of the set or sets at `path` as ``target/CLASS/KEY.png`` and return how
    many.

    Raises TruelikeError, and writes nothing, if `target` already holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TruelikeError(f"{target}: already holds something; export into a new directory")
    count = 0
    for images in map(ImageSet, sets_in(path)):
        folders = folder_names(images.class_names)
        for folder in folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        rows = zip(images.keys, images.labels, strict=True)
        for position, (key, label) in enumerate(
            tqdm(rows, total=len(images), desc=str(images.folder), disable=None)
        ):
            (target / folders[label] / f"{key}.png").write_bytes(images.png(position))
            count += 1
    return count

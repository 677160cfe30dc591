"""From image sets to an image folder that any other tool reads."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.imageset.checks import STORAGE_COLUMNS
from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import track
from truelike.sharing.selection import read_selection, selected_rows

METADATA_FILE = "metadata.jsonl"
LONGEST = 120  # bytes of a folder's name
RESERVED = re.compile(  # to Windows, and to us
    rf"(con|prn|aux|nul|(com|lpt)[\d¹²³])(\..*)?|{re.escape(METADATA_FILE)}", re.IGNORECASE
)


def sets_in(path: Path) -> list[Path]:
    """The image set at `path`, or all below it (the replicas of ``outputs/synthetic``), replica 2
    before 10.

    Raises TruelikeError if there is none.
    """
    below = [path / INDEX_FILE] if (path / INDEX_FILE).is_file() else path.rglob(INDEX_FILE)
    folders = {index.parent for index in below}
    if not folders:
        raise TruelikeError(
            f"{path}: no image set here (no {INDEX_FILE}); run `dvc repro` or `dvc pull`"
        )
    return sorted(folders, key=lambda folder: (folder.parent, len(folder.name), folder.name))


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder name per class that every file system allows; classes never share one, even where
    case does not matter.

    What a file system refuses is written as ``%`` and two hex digits per byte; a name that is too
    long ends in ``~`` and its hash, names that differ by case alone in ``~`` and their label.
    """
    escaped = [_escape(name) for name in class_names]
    folded = [unicodedata.normalize("NFC", name).casefold() for name in escaped]
    counts = Counter(folded)
    return [
        f"{name}~{label}" if counts[key] > 1 else name
        for label, (name, key) in enumerate(zip(escaped, folded, strict=True))
    ]


def _escape(name: str) -> str:
    text = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*%~]|^[.\s]|[.\s]$', _percent, name)
    if RESERVED.fullmatch(text) or not text:
        text = _percent(text[:1] or " ") + text[1:]
    if len(text.encode()) > LONGEST:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        text = f"{text.encode()[:LONGEST].decode(errors='ignore')}~{digest}"
    return text


def _percent(found: re.Match[str] | str) -> str:
    text = found if isinstance(found, str) else found[0]
    return "".join(f"%{byte:02X}" for byte in text.encode())


def export(path: Path, target: Path, dropped: bool = False) -> int:
    """Write the images of the set or sets at `path` as ``CLASS/KEY.png`` below `target`, below
    ``target/SPLIT`` where the sets have several splits, and return how many.

    Images that selection dropped are left out unless `dropped`. Beside the class folders lies
    ``metadata.jsonl``: per image its file_name, label (class name), text (the prompt of a synthetic
    image) and the other columns of its index row. Raises TruelikeError, and writes nothing, if
    `target` already holds something or lies in an image set, or if two images have one key.
    """
    inside = [folder for folder in target.resolve().parents if (folder / INDEX_FILE).is_file()]
    if inside:
        raise TruelikeError(f"{target}: lies in the image set {inside[0]}; export beside it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TruelikeError(f"{target}: already holds something; export into a new directory")
    sets = [ImageSet(folder) for folder in sets_in(path)]
    chosen = [selected_rows(images, None if dropped else read_selection(images)) for images in sets]
    _check(sets)
    splits = {split for images in sets for split in _splits(images)}
    lines: dict[Path, list[str]] = {}
    for images, (positions, labels) in zip(sets, chosen, strict=True):
        folders = folder_names(images.class_names)
        rows = zip(positions, labels, _splits(images)[positions], strict=True)
        for position, label, split in track(rows, str(images.folder), len(positions)):
            root = target / folder_names([split])[0] if len(splits) > 1 else target
            file = Path(folders[label], f"{images.keys[position]}.png")
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(images.png(position))
            row = {"file_name": file.as_posix(), "label": images.class_names[label]}
            row |= _metadata(images.index.iloc[position])
            lines.setdefault(root, []).append(json.dumps(row, ensure_ascii=False))
    for root, texts in lines.items():
        text = "".join(f"{line}\n" for line in texts)
        (root / METADATA_FILE).write_text(text, encoding="utf-8")
    return sum(map(len, lines.values()))


def _check(sets: Sequence[ImageSet]) -> None:
    keys = pd.concat([images.index["key"] for images in sets], ignore_index=True)
    if (repeated := keys[keys.duplicated()]).any():
        folders = [
            str(images.folder) for images in sets if repeated.iloc[0] in set(images.index["key"])
        ]
        raise TruelikeError(
            f"{', '.join(folders)}: all have an image {repeated.iloc[0]!r}; export them into "
            "separate directories"
        )
    for images in sets:
        if images.class_names != sets[0].class_names:
            raise TruelikeError(
                f"{images.folder}: has other classes than {sets[0].folder}; export them into "
                "separate directories"
            )


def _splits(images: ImageSet) -> np.ndarray:
    """The split of every image, "" where the set has none."""
    none = pd.Series("", images.index.index)
    return images.index.get("split", none).fillna("").astype(str).to_numpy(object)


def _metadata(row: pd.Series) -> dict[str, Any]:
    """An index row without what is said elsewhere or only of the shards, as JSON values."""
    hidden = {*STORAGE_COLUMNS, "label", "class_name", "prompt"}
    values = {"text": row["prompt"]} if "prompt" in row else {}
    for name, value in row.items():
        if name not in hidden:
            plain = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
            values[str(name)] = None if pd.api.types.is_scalar(plain) and pd.isna(plain) else plain
    return values

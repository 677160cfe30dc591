"""An offline gallery of whole image sets: a page that loads thumbnails by the block as one scrolls.

Files from a directory may not read one another in a browser, scripts excepted: so each block is a
script that hands over its thumbnails and rows.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.reporting.pictures import data_uri
from truelike.reporting.rendering import render_template
from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import track

BLOCK = 200  # images in a script
SIDE = 96  # pixels of a thumbnail
HIDDEN = ("shard", "offset", "length")
PAGE_FILE, BLOCKS = "index.html", "blocks"


@dataclass(frozen=True)
class Exhibit:
    """An image set, and the table by which selection kept or dropped its images, if any."""

    images: ImageSet
    selection: pd.DataFrame | None = None


def write_gallery(
    exhibits: Sequence[Exhibit],
    real: Sequence[ImageSet],
    captions: Mapping[str, str],
    folder: Path,
) -> Path:
    """Write the gallery of some sets into `folder`, and return the path of its page.

    Beside an image it shows the one in the `real` sets that it was made from, and of `captions` (by
    key) that of its ``caption_key``. Raises TruelikeError if `folder` holds something else.
    """
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / BLOCKS).is_dir())
    ):
        raise TruelikeError(f"{folder}: holds something else; give a new directory with --out")
    shutil.rmtree(folder / BLOCKS, ignore_errors=True)
    (folder / BLOCKS).mkdir(parents=True)
    names = dict.fromkeys(name for exhibit in exhibits for name in exhibit.images.class_names)
    table = pd.concat(
        [_summary(exhibit, number) for number, exhibit in enumerate(exhibits)], ignore_index=True
    )
    places = [(exhibit.images, row) for exhibit in exhibits for row in range(len(exhibit.images))]
    _write_blocks(places, captions, folder, "")
    wanted = set(table["source"])
    sources = [
        (images, row) for images in real for row, key in enumerate(images.keys) if key in wanted
    ]
    _write_blocks(sources, captions, folder, "real-")
    numbers = {images.keys[row]: number for number, (images, row) in enumerate(sources)}
    classes = {name: number for number, name in enumerate(names)}
    folders = [exhibit.images.folder.as_posix() for exhibit in exhibits]
    data = {
        "block": BLOCK,
        "classes": list(names),
        "sets": folders,
        "labels": table["class_name"].map(classes).tolist(),
        "set": table["set"].tolist(),
        "texts": table["text"].tolist(),
        "reasons": table["reason"].tolist(),
        "sources": table["source"].map(numbers).fillna(-1).astype(int).tolist(),
    }
    page = folder / PAGE_FILE
    title = os.path.commonpath(folders)
    page.write_text(render_template("gallery.html.j2", title=title, data=data), encoding="utf-8")
    return page


def _summary(exhibit: Exhibit, number: int) -> pd.DataFrame:
    """What the page knows of each image before its block is loaded: set, class_name, text, source,
    reason.
    """
    index, selection = exhibit.images.index, exhibit.selection
    reasons = pd.Series(dtype=object)
    if selection is not None:
        dropped = selection[~selection["keep"].astype(bool)]
        reasons = dropped.set_index("key")["reason"]
    return pd.DataFrame(
        {
            "set": number,
            "class_name": index["class_name"],
            "text": index.get("prompt", index.get("source", index["key"])).fillna(""),
            "source": index.get("source_key", pd.Series("", index.index)).fillna(""),
            "reason": index["key"].map(reasons).fillna(""),
        }
    )


def _write_blocks(
    places: Sequence[tuple[ImageSet, int]], captions: Mapping[str, str], folder: Path, prefix: str
) -> None:
    """Write a script per BLOCK images: their thumbnails and index rows."""
    starts = range(0, len(places), BLOCK)
    for number, start in enumerate(track(starts, "gallery", len(starts), "block")):
        block = places[start : start + BLOCK]
        content = {
            "rows": [_row(images, row, captions) for images, row in block],
            "uris": [data_uri(images.pixels(row), SIDE) for images, row in block],
        }
        call = f"gallery.load({json.dumps(f'{prefix}{number}')}, {json.dumps(content)});\n"
        (folder / BLOCKS / f"{prefix}{number}.js").write_text(call, encoding="utf-8")


def _row(images: ImageSet, position: int, captions: Mapping[str, str]) -> dict[str, Any]:
    """An index row as JSON values, without its place in the shard, with its caption."""
    row = images.index.iloc[position].to_dict()
    caption = captions.get(row.get("caption_key") or row["key"])
    values = {"caption": caption} if caption else {}
    for name, value in row.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if name not in HIDDEN and not pd.isna(plain):
            # JavaScript has no integers of 64 bits, such as seeds.
            values[str(name)] = str(plain) if isinstance(plain, int) else plain
    return values

"""From a real image to every image that was made from it."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError


def trace(name: str, folders: Iterable[Path]) -> pd.DataFrame:
    """The real image `name` (its key, or its path in the source) and all images made from it or
    from its caption.

    One row per image: folder, key, made_from ("" for the real image itself). An image that has been
    excluded is still found in sets that were made before. Raises TruelikeError if no image of these
    sets is it, or was made from it.
    """
    sets = [ImageSet(folder) for folder in folders]
    real = pd.concat(
        [_rows(images, "source").eq(name) | images.index["key"].eq(name) for images in sets]
    )
    keys = pd.concat([images.index["key"] for images in sets])
    wanted = {name, *keys[real.to_numpy()]}
    tables = []
    for images in sets:
        rows = images.index
        itself = rows["key"].isin(wanted)
        captioned = _rows(images, "caption_key").map(_of_image, na_action="ignore")
        derived = _rows(images, "source_key").isin(wanted) | captioned.isin(wanted)
        chosen = rows[itself | derived]
        origin = _rows(images, "source_key")[chosen.index].fillna("")
        tables.append(
            pd.DataFrame({"folder": str(images.folder), "key": chosen["key"], "made_from": origin})
        )
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise TruelikeError(
            f"{name}: no image of {', '.join(str(images.folder) for images in sets)} is it or was "
            "made from it; "
            "give its key, or its path within data.source, as in the columns key and source of "
            "index.parquet"
        )
    return table


def _rows(images: ImageSet, column: str) -> pd.Series:
    """A column of the index, or nothing in every row."""
    return images.index.get(column, pd.Series(None, index=images.index.index, dtype=object))


def _of_image(caption_key: str) -> str:
    """The key of the image that a caption is of: a rewrite's ends in ``/N``."""
    return caption_key.partition("/")[0]

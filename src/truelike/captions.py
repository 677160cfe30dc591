"""Captions of real images: made by a model, or read from a file; every image gets one, or it is an error."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from truelike.data.imageset import ImageSet
from truelike.errors import TruelikeError
from truelike.models.captioner import Captioner


def caption_images(images: ImageSet, captioner: Captioner, max_tokens: int, batch_size: int) -> pd.DataFrame:
    """Caption every image: key, caption, truncated (cut off at `max_tokens`); raises for an empty caption."""
    captions: list[str] = []
    truncated: list[bool] = []
    with tqdm(desc="caption", total=len(images), unit="image") as bar:
        for batch in images.batches(batch_size):
            texts, cut = captioner.caption(batch, max_tokens)
            captions += texts
            truncated += cut
            bar.update(len(batch))
    return _checked(images.keys, captions, "models.captioner").assign(truncated=truncated)


def no_captions(images: ImageSet) -> pd.DataFrame:
    """An empty caption for every image, for class-only prompts."""
    return pd.DataFrame({"key": images.keys, "caption": "", "truncated": False})


def read_caption_file(images: ImageSet, path: str) -> pd.DataFrame:
    """Captions from a parquet or csv table with a `caption` column and a `key` or `source` column.

    Raises TruelikeError if the file or a column is missing, if an image has no caption or an empty one, or several.
    """
    if not Path(path).is_file():
        raise TruelikeError(f"models.captioner: {path}: no such file")
    table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path, keep_default_na=False)
    by = next((name for name in ("key", "source") if name in table), None)
    if by is None or "caption" not in table:
        raise TruelikeError(
            f"models.captioner: {path} must have the columns caption and key or source, "
            f"found {', '.join(map(str, table))}"
        )
    if (twice := table[by].duplicated()).any():
        raise TruelikeError(f"models.captioner: {path}: {by} {table[by][twice].iloc[0]!r} has more than one caption")
    given = dict(zip(table[by].astype(str), table["caption"].fillna("").astype(str), strict=True))
    captions = [" ".join(given.get(item, "").split()) for item in images.index[by].astype(str)]
    return _checked(images.keys, captions, f"models.captioner: {path}").assign(truncated=False)


def _checked(keys: Sequence[str], captions: Sequence[str], origin: str) -> pd.DataFrame:
    empty = [key for key, caption in zip(keys, captions, strict=True) if not caption]
    if empty:
        raise TruelikeError(
            f"{origin}: no caption for {len(empty)} of {len(keys)} images, the first is {empty[0]!r}; "
            "add it, or set caption.by to 'none' for prompts of the class alone"
        )
    return pd.DataFrame({"key": list(keys), "caption": list(captions)})

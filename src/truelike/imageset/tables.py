"""Tables keyed by image: parquet with a `key` column, read back in the order of the keys that are
asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import write_once


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, whole or not at all, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_once(path, lambda partial: table.to_parquet(partial, index=False))


def write_features(path: Path, keys: Sequence[str], features: np.ndarray) -> None:
    """Write one feature vector per image; `features` float32 of shape (N, D)."""
    write_table(
        path, pd.DataFrame({"key": list(keys), "feature": list(features.astype(np.float32))})
    )


def read_features(path: Path, keys: Sequence[str]) -> np.ndarray:
    """The features of `keys` in that order, float32 of shape (N, D); raises TruelikeError for a key
    without one.
    """
    return np.stack(read_column(path, keys, "feature"))


def read_captions(path: Path, keys: Sequence[str]) -> list[str]:
    """The captions of `keys` in that order, empty strings for class-only prompts; raises for a key
    without a row.
    """
    return read_column(path, keys, "caption")


def read_rewrites(path: Path, keys: Sequence[str]) -> list[list[str]]:
    """The rewrites of the captions of `keys` in that order, empty lists where captions were not
    rewritten.
    """
    if "rewrites" not in pq.read_schema(path).names:
        return [[] for _ in keys]
    return [list(rewrites) for rewrites in read_column(path, keys, "rewrites")]


def read_column(path: Path, keys: Sequence[str], column: str) -> list:
    """One column of the rows of `keys`, in that order; raises TruelikeError for a key without a
    row.
    """
    values = pd.read_parquet(path, columns=["key", column]).set_index("key")[column]
    missing = [key for key in keys if key not in values.index]
    if missing:
        raise TruelikeError(
            f"{path}: no {column} for {len(missing)} images, the first is {missing[0]!r}; rerun "
            "its stage"
        )
    return values.loc[list(keys)].tolist()


def undecided(images: ImageSet) -> pd.DataFrame:
    """A selection table that keeps every image and scores none."""
    return pd.DataFrame(
        {
            "key": pd.Series(images.keys, dtype="str"),
            "folder": pd.Series([images.folder.as_posix()] * len(images), dtype="str"),
            "label": images.labels,
            "class_probability": np.full(len(images), np.nan, np.float32),
            "nearest_key": pd.Series([""] * len(images), dtype="str"),
            "nearest_similarity": np.full(len(images), np.nan, np.float32),
            "keep": np.ones(len(images), bool),
            "reason": pd.Series([""] * len(images), dtype="str"),
        }
    )

"""Tables keyed by image: parquet with a `key` column, read back in the order of the keys that are
asked for.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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


def read_user_table(path: Path, parameter: str) -> pd.DataFrame:
    """A table that a user wrote, of objects: parquet, CSV (UTF-8, all values text) or JSON lines
    (an object a line).

    Raises TruelikeError, which names `parameter` and the line, for a file that is missing, empty,
    of another encoding or broken.
    """
    if not path.is_file():
        raise TruelikeError(f"{parameter}: {path}: no such file")
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise TruelikeError(f"{parameter}: {path}: must be a .csv, .jsonl or .parquet file")
    try:
        return readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise TruelikeError(
            f"{parameter}: {path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as "
            "UTF-8"
        ) from None
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise TruelikeError(f"{parameter}: {path}: cannot be read as a table: {error}") from None


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        if not header:
            raise ValueError("it is empty; its first line must name the columns")
        if len(set(header)) < len(header):
            raise ValueError(f"line 1 names a column twice: {', '.join(header)}")
        rows = []
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(
                    f"line {reader.line_num} has {len(row)} fields, the header {len(header)}; put "
                    "texts with commas in "
                    "double quotes"
                )
            if row:
                rows.append(row)
    return pd.DataFrame(rows, columns=header, dtype=object)


def _read_json_lines(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} must be an object such as {{...}}")
            rows.append(row)
    if not rows:
        raise ValueError("it is empty")
    columns = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame(
        [[row.get(name) for name in columns] for row in rows], columns=list(columns), dtype=object
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pq.read_table(path, partitioning=None)
    if len(set(table.column_names)) < table.num_columns:
        raise ValueError("it has a column twice")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


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

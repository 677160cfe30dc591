"""Writes image sets: deterministic WebDataset shards, the index of their images, and the sha256 of
each file.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from truelike.imageset.checks import CLASS_NAMES, STORAGE_COLUMNS, SUMS_FILE, metadata, write_sums
from truelike.imageset.reading import INDEX_FILE
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import writing


@dataclass(frozen=True)
class Sample:
    """One image to be written: uint8 HWC RGB pixels, its key, its label, and further columns of its
    index row.
    """

    key: str
    label: int
    pixels: np.ndarray
    columns: dict[str, Any] = field(default_factory=dict)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 HWC RGB pixels as PNG bytes, the same bytes for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def write_shard(
    file: BinaryIO, name: str, samples: Iterable[Sample], class_names: Sequence[str]
) -> pd.DataFrame:
    """Write the shard `name` as a tar; returns its index rows (key, label, class_name, width,
    height, sha256, ...).
    """
    rows = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for sample in samples:
            data = encode_png(sample.pixels)
            class_name = class_names[sample.label]
            identity = {"key": sample.key, "label": sample.label, "class_name": class_name}
            _add(tar, f"{sample.key}.json", metadata(identity | sample.columns))
            offset = _add(tar, f"{sample.key}.png", data)
            height, width = sample.pixels.shape[:2]
            rows.append(
                {
                    "key": sample.key,
                    "label": sample.label,
                    "class_name": class_name,
                    "width": width,
                    "height": height,
                }
                | {"sha256": hashlib.sha256(data).hexdigest(), "shard": name}
                | {"offset": offset, "length": len(data)}
                | sample.columns
            )
    return pd.DataFrame(rows)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member with nothing in its header but name and size; return the offset of its data
    in the archive.
    """
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return int(tar.offset) - padded


def write_index(path: Path, rows: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Write ``index.parquet``, the class names in its schema metadata; raises TruelikeError on
    duplicate keys.
    """
    if len(rows) and rows["key"].duplicated().any():
        raise TruelikeError(
            f"{path}: duplicate image key {rows['key'][rows['key'].duplicated()].iloc[0]!r}"
        )
    table = pa.Table.from_pandas(rows, preserve_index=False)
    names = json.dumps(list(class_names), ensure_ascii=False).encode()
    pq.write_table(table.replace_schema_metadata({CLASS_NAMES: names}), path)


EMPTY_COLUMNS = ("key", "label", "class_name", *STORAGE_COLUMNS)


def write_image_set(
    folder: Path, samples: Iterable[Sample], class_names: Sequence[str], shard_size: int = 1000
) -> None:
    """Write a whole image set of at most `shard_size` images per shard into a new directory, one
    image in memory.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        waiting = iter(samples)
        shards: list[pd.DataFrame] = []
        for first in waiting:
            shard = itertools.chain([first], itertools.islice(waiting, shard_size - 1))
            name = shard_name(len(shards))
            with (folder / name).open("wb") as file:
                shards.append(write_shard(file, name, shard, class_names))
        rows = (
            pd.concat(shards, ignore_index=True) if shards else pd.DataFrame(columns=EMPTY_COLUMNS)
        )
        write_index(folder / INDEX_FILE, rows, class_names)
        write_sums(folder / SUMS_FILE, [folder / INDEX_FILE, *sorted(folder.glob("*.tar"))])

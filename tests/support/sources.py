"""Small sources of real images, made on disk: folders, parquet files, and their settings."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from truelike.sources.settings import Data
from truelike.sources.source import Source

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def folder(root: Path, files: Iterable[str]) -> Path:
    """Files below a root; those whose suffix is no picture's hold text."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_text = path.suffix in (".txt", ".csv", ".pdf")
        path.write_bytes(b"text" if is_text else png(number))
    return root


def grid(tops: Sequence[str], names: str = "ab") -> list[str]:
    """A picture in every folder of ``TOP/NAME``."""
    return [f"{top}/{name}/1.png" for top in tops for name in names]


def parquet(
    path: Path,
    labels: Sequence[Any] | pa.Array,
    names: Any = None,
    paths: Sequence[str] | None = None,
    first: int = 0,
    image: str = "image",
    label: str = "label",
    kind: pa.DataType = STRUCT,
) -> Path:
    """A parquet file; `names` are of its ClassLabel, `first` is the first picture's number."""
    pictures: list[Any] = [png(first + number) for number in range(len(labels))]
    if pa.types.is_struct(kind):
        pictures = [
            {"bytes": data, "path": paths[number] if paths else None}
            for number, data in enumerate(pictures)
        ]
    table = pa.table({image: pa.array(pictures, kind), label: labels})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        metadata = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def data(source: Path | str, **changes: Any) -> Data:
    """Settings of a source, all others as small as they can be."""
    values = {"resolution": 8, "square": "pad", "shots": 3, "seed": 0, "exclude": ()}
    fractions = {"validation_fraction": 0.2, "test_fraction": 0.2}
    return Data(**(values | fractions | {"source": str(source)} | changes))


def placed(source: Source) -> dict[str, tuple[str, str]]:
    """The split and class of every image, by its path in the source."""
    return {record.source: (record.split, record.class_name) for record in source.records}

"""The image set: one table and a few tar shards, for real and synthetic images alike.

A directory with ``index.parquet`` (a row per image, class names in its schema metadata) and ``shard-00000.tar``, ... in
WebDataset layout (``KEY.png`` and ``KEY.json``), deterministic USTAR. Images are read by offset and never unpacked.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from truelike.errors import TruelikeError

INDEX_FILE = "index.parquet"
CLASS_NAMES = b"class_names"
STORAGE_COLUMNS = ("width", "height", "sha256", "shard", "offset", "length")


@dataclass(frozen=True)
class Sample:
    """One image to be written: uint8 HWC RGB pixels, its key, its label, and further columns of its index row."""

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


def write_shard(path: Path, samples: Iterable[Sample], class_names: Sequence[str]) -> pd.DataFrame:
    """Write one tar shard and return its index rows (key, label, class_name, width, height, sha256, shard, ...)."""
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for sample in samples:
            data = encode_png(sample.pixels)
            class_name = class_names[sample.label]
            identity = {"key": sample.key, "label": sample.label, "class_name": class_name}
            _add(tar, f"{sample.key}.json", _metadata(identity | sample.columns))
            offset = _add(tar, f"{sample.key}.png", data)
            height, width = sample.pixels.shape[:2]
            rows.append(
                {"key": sample.key, "label": sample.label, "class_name": class_name, "width": width, "height": height}
                | {"sha256": hashlib.sha256(data).hexdigest(), "shard": path.name.removesuffix(".partial")}
                | {"offset": offset, "length": len(data)}
                | sample.columns
            )
    return pd.DataFrame(rows)


def _metadata(columns: dict[str, Any]) -> bytes:
    return json.dumps(columns, ensure_ascii=False, sort_keys=True).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member with nothing in its header but name and size; return the offset of its data in the archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return int(tar.offset) - padded


def write_index(path: Path, rows: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Write ``index.parquet``, the class names in its schema metadata; raises TruelikeError on duplicate keys."""
    if len(rows) and rows["key"].duplicated().any():
        raise TruelikeError(f"{path}: duplicate image key {rows['key'][rows['key'].duplicated()].iloc[0]!r}")
    table = pa.Table.from_pandas(rows, preserve_index=False)
    names = json.dumps(list(class_names), ensure_ascii=False).encode()
    pq.write_table(table.replace_schema_metadata({CLASS_NAMES: names}), path)


EMPTY_COLUMNS = ("key", "label", "class_name", *STORAGE_COLUMNS)


def write_image_set(
    folder: Path, samples: Iterable[Sample], class_names: Sequence[str], shard_size: int = 1000
) -> None:
    """Write a whole image set of at most `shard_size` images per shard into a new directory, one image in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting = iter(samples)
    shards: list[pd.DataFrame] = []
    for first in waiting:
        shard = itertools.chain([first], itertools.islice(waiting, shard_size - 1))
        shards.append(write_shard(folder / shard_name(len(shards)), shard, class_names))
    rows = pd.concat(shards, ignore_index=True) if shards else pd.DataFrame(columns=EMPTY_COLUMNS)
    write_index(folder / INDEX_FILE, rows, class_names)


class ImageSet:
    """An image set opened for reading: `index` (a row per image), `class_names`, and the images by position."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX_FILE
        if not path.is_file():
            raise TruelikeError(
                f"{self.folder}: not an image set, {INDEX_FILE} is missing; run `dvc repro` or `dvc pull`"
            )
        try:
            table = pq.read_table(path)
            self.class_names: list[str] = json.loads((table.schema.metadata or {})[CLASS_NAMES])
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            raise TruelikeError(f"{path}: not the index of an image set ({error}); run `dvc checkout`") from None
        self.index: pd.DataFrame = table.to_pandas()
        self._open_shards: dict[str, BinaryIO] = {}

    def __len__(self) -> int:
        return len(self.index)

    @property
    def keys(self) -> list[str]:
        return self.index["key"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """Labels, int64 of shape (N,)."""
        return self.index["label"].to_numpy(dtype=np.int64)

    def png(self, position: int) -> bytes:
        """The encoded image at a row position; raises TruelikeError if the shard is missing or too short."""
        row = self.index.iloc[position]
        name = str(row["shard"])
        if name not in self._open_shards:
            try:
                self._open_shards[name] = (self.folder / name).open("rb")
            except FileNotFoundError:
                raise TruelikeError(
                    f"{self.folder / name}: shard is missing; run `dvc checkout` or `dvc pull`"
                ) from None
        file = self._open_shards[name]
        file.seek(int(row["offset"]))
        data = file.read(int(row["length"]))
        if len(data) != int(row["length"]):
            raise TruelikeError(
                f"{self.folder / name}: shard is truncated at image {row['key']!r}; restore it and rerun"
            )
        return data

    def pixels(self, position: int) -> np.ndarray:
        """The decoded image at a row position, uint8 of shape (H, W, 3)."""
        with Image.open(io.BytesIO(self.png(position))) as image:
            return np.asarray(image.convert("RGB"))

    def load(self, positions: Iterable[int] | None = None) -> np.ndarray:
        """Decode images (all by default), uint8 of shape (N, H, W, 3); all must have one size."""
        chosen = range(len(self)) if positions is None else list(positions)
        images = [self.pixels(position) for position in chosen]
        return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Decode all images in order, uint8 batches of shape (<= size, H, W, 3)."""
        for start in range(0, len(self), size):
            yield self.load(range(start, min(start + size, len(self))))

    def problems(self) -> list[str]:
        """Recompute every hash and count and read every tar member; a line per problem, none for a sound set."""
        found = []
        for position, expected in enumerate(self.index["sha256"]):
            try:
                sound = hashlib.sha256(self.png(position)).hexdigest() == expected
            except TruelikeError as error:
                found.append(str(error))
                continue
            if not sound:
                row = self.index.iloc[position]
                found.append(f"{self.folder / row['shard']}: image {row['key']!r} does not match its sha256")
        for name, rows in self.index.groupby("shard"):
            found += _archive_problems(self.folder / str(name), rows)
        extra = {path.name for path in self.folder.glob("*.tar")} - set(self.index["shard"])
        return found + [f"{self.folder / name}: shard is not in the index" for name in sorted(extra)]


def _archive_problems(shard: Path, rows: pd.DataFrame) -> Iterator[str]:
    """Compare the tar archive's members and the images' JSON with the index rows."""
    if not shard.is_file():
        return
    try:
        with tarfile.open(shard, "r:") as archive:
            members = {m.name: cast(IO[bytes], archive.extractfile(m)).read() for m in archive if m.isfile()}
    except (tarfile.TarError, OSError) as error:
        yield f"{shard}: not a sound tar archive ({error})"
        return
    expected = {f"{key}.{suffix}" for key in rows["key"] for suffix in ("json", "png")}
    if set(members) != expected:
        yield f"{shard}: holds {len(members)} files, {len(expected & set(members))} of the {len(expected)} in the index"
    for row in rows.to_dict("records"):
        text = members.get(f"{row['key']}.json")
        stored = {str(n): None if pd.isna(value) else value for n, value in row.items() if n not in STORAGE_COLUMNS}
        if text is not None and text != _metadata(stored):
            yield f"{shard}: the JSON of image {row['key']!r} does not match the index"


def open_replicas(parent: str | Path, replicas: Iterable[int]) -> list[ImageSet]:
    """Open the image sets ``parent/REPLICA`` in the given order."""
    return [ImageSet(Path(parent) / str(replica)) for replica in replicas]

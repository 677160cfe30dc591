"""The image set: one table and a few tar shards, for real and synthetic images alike.

A directory with ``index.parquet`` (a row per image, class names in its schema metadata), ``shard-00000.tar``, ... in
WebDataset layout (``KEY.png`` and ``KEY.json``), deterministic USTAR, and ``SHA256SUMS`` of them all. Images are read
by offset and never unpacked; what is read is checked, for a set may come from anywhere.
"""

import hashlib
import io
import itertools
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from truelike.data.checks import (
    CLASS_NAMES,
    STORAGE_COLUMNS,
    SUMS_FILE,
    archive_problems,
    decode_png,
    listed_sums,
    metadata,
    open_regular,
    read_index,
    sum_problems,
    write_sums,
)
from truelike.errors import TruelikeError
from truelike.scratch import scratch_root, writing

INDEX_FILE = "index.parquet"
REPAIR = "restore it as docs/sharing.md says"


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


def write_shard(file: BinaryIO, name: str, samples: Iterable[Sample], class_names: Sequence[str]) -> pd.DataFrame:
    """Write the shard `name` as a tar; returns its index rows (key, label, class_name, width, height, sha256, ...)."""
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
                {"key": sample.key, "label": sample.label, "class_name": class_name, "width": width, "height": height}
                | {"sha256": hashlib.sha256(data).hexdigest(), "shard": name}
                | {"offset": offset, "length": len(data)}
                | sample.columns
            )
    return pd.DataFrame(rows)


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
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        waiting = iter(samples)
        shards: list[pd.DataFrame] = []
        for first in waiting:
            shard = itertools.chain([first], itertools.islice(waiting, shard_size - 1))
            name = shard_name(len(shards))
            with (folder / name).open("wb") as file:
                shards.append(write_shard(file, name, shard, class_names))
        rows = pd.concat(shards, ignore_index=True) if shards else pd.DataFrame(columns=EMPTY_COLUMNS)
        write_index(folder / INDEX_FILE, rows, class_names)
        write_sums(folder / SUMS_FILE, [folder / INDEX_FILE, *sorted(folder.glob("*.tar"))])


def stack_on_disk(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape and type into one (N, ...) that is mapped from a file of the scratch folder.

    The system keeps as much of it in memory as there is room for, and forks share it. The file has no name: it is gone
    with the last process that uses it, however that ends. Of nothing, uint8 (0, 1, 1, 3). Raises TruelikeError where
    there is no space, ValueError for arrays of several shapes.
    """
    root = scratch_root()
    shape, dtype, count = (1, 1, 3), np.dtype(np.uint8), 0
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            for array in arrays:
                if count and array.shape != shape:
                    raise ValueError(f"all arrays must have one shape, found {shape} and {array.shape}")
                shape, dtype, count = array.shape, array.dtype, count + 1
                file.write(array.tobytes())
            file.flush()
            if not count:
                return np.zeros((0, *shape), dtype)
            return np.asarray(np.memmap(file, dtype, "c", shape=(count, *shape)))


class ImageSet:
    """An image set opened for reading: `index` (a row per image), `class_names`, and the images by position.

    `open_file` opens a file of the set by name where the set is no local directory. An image set can be sent to other
    processes, and used in the workers of a torch DataLoader.
    """

    def __init__(self, folder: str | Path, open_file: Callable[[str], BinaryIO] | None = None) -> None:
        self.folder = Path(folder)
        self._open_file = open_file
        self._open_shards: dict[tuple[int, str], BinaryIO] = {}
        path = self.folder / INDEX_FILE
        if open_file is None and not path.exists():
            raise TruelikeError(
                f"{self.folder}: not an image set, {INDEX_FILE} is missing; run `dvc repro` or `dvc pull`"
            )
        with self._open(INDEX_FILE) as file:
            data = file.read()
        with self._open(SUMS_FILE) as file:
            sums = file.read()
        if listed_sums(sums).get(INDEX_FILE) != hashlib.sha256(data).hexdigest():
            raise TruelikeError(f"{path}: does not match its sha256 in {SUMS_FILE}; {REPAIR}")
        self.index, self.class_names = read_index(data, str(path))
        columns = self.index[["shard", "offset", "length", "sha256", "width", "height", "key"]]
        self._places = list(columns.itertuples(index=False, name=None))

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_shards": {}}

    @property
    def keys(self) -> list[str]:
        return self.index["key"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """Labels, int64 of shape (N,)."""
        return self.index["label"].to_numpy(dtype=np.int64)

    def _open(self, name: str) -> BinaryIO:
        return self._open_file(name) if self._open_file else open_regular(self.folder / name)

    def png(self, position: int) -> bytes:
        """The encoded image at a row position; raises TruelikeError if it is missing, cut short, or not its sha256."""
        name, offset, length, digest, _, _, key = self._places[position]
        place = (os.getpid(), name)  # a forked process must not share the position in a file with its parent
        if place not in self._open_shards:
            self._open_shards[place] = self._open(name)
        file = self._open_shards[place]
        file.seek(offset)
        data = file.read(length)
        if len(data) != length:
            raise TruelikeError(f"{self.folder / name}: shard is truncated at image {key!r}; {REPAIR}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise TruelikeError(f"{self.folder / name}: image {key!r} does not match its sha256; {REPAIR}")
        return data

    def pixels(self, position: int) -> np.ndarray:
        """The decoded image at a row position, uint8 of shape (H, W, 3)."""
        name, _, _, _, width, height, key = self._places[position]
        return decode_png(self.png(position), width, height, f"{self.folder / name}: image {key!r}")

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
        """Recompute every hash and count, decode every image and read every tar member; a line per problem."""
        shards = {str(name): rows for name, rows in self.index.groupby("shard")}
        found = list(sum_problems(self.folder, {INDEX_FILE, *shards}))
        for name, rows in shards.items():
            found += archive_problems(self.folder / name, rows)
            if (self.folder / name).is_file():
                found += [text for position in rows.index if (text := self._problem(int(position))) is not None]
        return found

    def _problem(self, position: int) -> str | None:
        try:
            self.pixels(position)
        except TruelikeError as error:
            return str(error)
        return None


def verify(folder: str | Path) -> list[str]:
    """All that is wrong with the image set in `folder`: a line per problem, none for a sound set."""
    try:
        return ImageSet(folder).problems()
    except TruelikeError as error:
        return [str(error)]


def open_replicas(parent: str | Path, replicas: Iterable[int]) -> list[ImageSet]:
    """Open the image sets ``parent/REPLICA`` in the given order."""
    return [ImageSet(Path(parent) / str(replica)) for replica in replicas]

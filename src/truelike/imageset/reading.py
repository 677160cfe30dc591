"""The image set: one table and a few tar shards, for real and synthetic images alike.

A directory with ``index.parquet`` (a row per image, class names in its schema metadata),
``shard-00000.tar``, ... in WebDataset layout (``KEY.png`` and ``KEY.json``), deterministic USTAR,
and ``SHA256SUMS`` of them all. Images are read by offset and never unpacked; what is read is
checked, for a set may come from anywhere.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from truelike.imageset.checks import (
    SUMS_FILE,
    archive_problems,
    decode_png,
    listed_sums,
    open_regular,
    read_index,
    sum_problems,
)
from truelike.runtime.errors import TruelikeError

INDEX_FILE = "index.parquet"
OPEN_SHARDS = 64  # of a set, at once
REPAIR = "restore it as docs/sharing.md says"


class ImageSet:
    """An image set opened for reading: `index` (a row per image), `class_names`, and the images by
    position.

    `open_file` opens a file of the set by name where the set is no local directory. An image set
    can be sent to other processes, and used in the workers of a torch DataLoader.
    """

    def __init__(
        self, folder: str | Path, open_file: Callable[[str], BinaryIO] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._open_file = open_file
        self._open_shards: dict[tuple[int, str], BinaryIO] = {}
        path = self.folder / INDEX_FILE
        if open_file is None and not path.exists():
            raise TruelikeError(
                f"{self.folder}: not an image set, {INDEX_FILE} is missing; run `dvc repro` or "
                "`dvc pull`"
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
        """The encoded image at a row position; raises TruelikeError if it is missing, cut short, or
        not its sha256.
        """
        name, offset, length, digest, _, _, key = self._places[position]
        place = (
            os.getpid(),
            name,
        )  # a forked process must not share the position in a file with its parent
        if place not in self._open_shards:
            while len(self._open_shards) >= OPEN_SHARDS:
                self._open_shards.pop(next(iter(self._open_shards))).close()
            self._open_shards[place] = self._open(name)
        file = self._open_shards[place]
        file.seek(offset)
        data = file.read(length)
        if len(data) != length:
            raise TruelikeError(
                f"{self.folder / name}: shard is truncated at image {key!r}; {REPAIR}"
            )
        if hashlib.sha256(data).hexdigest() != digest:
            raise TruelikeError(
                f"{self.folder / name}: image {key!r} does not match its sha256; {REPAIR}"
            )
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
        """Recompute every hash and count, decode every image and read every tar member; a line per
        problem.
        """
        shards = {str(name): rows for name, rows in self.index.groupby("shard")}
        found = list(sum_problems(self.folder, {INDEX_FILE, *shards}))
        for name, rows in shards.items():
            found += archive_problems(self.folder / name, rows)
            if (self.folder / name).is_file():
                found += [
                    text
                    for position in rows.index
                    if (text := self._problem(int(position))) is not None
                ]
        return found

    def _problem(self, position: int) -> str | None:
        try:
            self.pixels(position)
        except TruelikeError as error:
            return str(error)
        return None


def verify(folder: str | Path) -> list[str]:
    """All that is wrong with the image set in `folder`: a line per problem, none for a sound
    set.
    """
    try:
        return ImageSet(folder).problems()
    except TruelikeError as error:
        return [str(error)]


def open_replicas(parent: str | Path, replicas: Iterable[int]) -> list[ImageSet]:
    """Open the image sets ``parent/REPLICA`` in the given order."""
    return [ImageSet(Path(parent) / str(replica)) for replica in replicas]

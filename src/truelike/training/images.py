"""Labelled images that networks are trained on: decoded once into the scratch folder, or from their
image sets whenever they are needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import current_process
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from truelike.imageset.reading import ImageSet
from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import own_cores
from truelike.runtime.scratch import stack_on_disk

PART = 256  # images that one process decodes at a time


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images: uint8 of shape (N, H, W, 3); labels, int64 of shape (N,), or soft ones,
    float32 (N, K).
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        return self.pixels.shape[1]

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        return self.pixels[positions]

    def at(self, positions: np.ndarray) -> "LabelledImages":
        """The images at these positions, in this order."""
        return LabelledImages(self.pixels[positions], self.labels[positions])


@dataclass(frozen=True)
class StoredImages:
    """Images that stay in their sets, as `LabelledImages` otherwise: image i is the one at
    `positions[i]` of ``sets[owners[i]]``.
    """

    sets: Sequence[ImageSet]
    owners: np.ndarray
    positions: np.ndarray
    resolution: int
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        taken = np.empty((len(positions), self.resolution, self.resolution, 3), np.uint8)
        for row, position in enumerate(positions):
            pixels = self.sets[self.owners[position]].pixels(int(self.positions[position]))
            taken[row] = resized(pixels, self.resolution)
        return taken

    def at(self, positions: np.ndarray) -> "StoredImages":
        """The images at these positions, in this order."""
        return replace(
            self,
            owners=self.owners[positions],
            positions=self.positions[positions],
            labels=self.labels[positions],
        )


Images = LabelledImages | StoredImages


@dataclass(frozen=True)
class Union:
    """Two sets of images as one, those of the second after those of the first; no pixels are
    copied.
    """

    first: Images
    second: Images

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([self.first.labels, self.second.labels])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        side = self.first.resolution
        behind = positions - len(self.first)
        chosen = np.empty((len(positions), side, side, 3), np.uint8)
        chosen[behind < 0] = self.first.take(positions[behind < 0])
        chosen[behind >= 0] = self.second.take(behind[behind >= 0])
        return chosen


TrainingSet = LabelledImages | StoredImages | Union


def resized(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """Square pixels (H, H, 3) scaled to a side of `resolution`, antialiased."""
    if resolution == len(pixels):
        return pixels
    size = (resolution, resolution)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def load_images(images: ImageSet, resolution: int | None = None, streaming: bool = False) -> Images:
    """All images of a set, at a resolution (None: their own), decoded now or when `streaming`
    asks for them.
    """
    places = [(0, position) for position in range(len(images))]
    return _load([images], places, images.labels, resolution, streaming)


def load_kept(
    selection: pd.DataFrame,
    class_names: Sequence[str],
    resolution: int | None = None,
    streaming: bool = False,
) -> Images:
    """The images that a selection table keeps, with the table's labels, as in `load_images`.

    Raises TruelikeError where the sets' class names differ.
    """
    sets: list[ImageSet] = []
    places: list[tuple[int, int]] = []
    kept_labels: list[int] = []
    for folder, rows in selection[selection["keep"]].groupby("folder", sort=False):
        images = ImageSet(Path(str(folder)))
        if images.class_names != list(class_names):
            raise TruelikeError(
                f"{folder}: its classes are not those of the real training images; run `dvc repro`"
            )
        labels = dict(zip(rows["key"], rows["label"], strict=True))
        kept = [(position, key) for position, key in enumerate(images.keys) if key in labels]
        places += [(len(sets), position) for position, _ in kept]
        kept_labels += [labels[key] for _, key in kept]
        sets.append(images)
    return _load(sets, places, np.array(kept_labels, dtype=np.int64), resolution, streaming)


def _load(
    sets: Sequence[ImageSet],
    places: Sequence[tuple[int, int]],
    labels: np.ndarray,
    resolution: int | None,
    streaming: bool,
) -> Images:
    if not places:
        return LabelledImages(np.zeros((0, 1, 1, 3), np.uint8), labels)
    owners, positions = np.array(places).T
    side = resolution or int(sets[0].index["width"].iloc[positions[0]])
    stored = StoredImages(sets, owners, positions, side, labels)
    if streaming:
        return stored
    starts = range(0, len(stored), PART)
    parts = [np.arange(start, min(start + PART, len(stored))) for start in starts]
    decoded = fetched(stored, parts, min(own_cores(), len(parts) - 1))
    return LabelledImages(
        stack_on_disk(image for _, part in decoded for image in part.numpy()), labels
    )


class _Taken(Dataset):
    """What `take` gives for a batch of positions, or the message of what went wrong."""

    def __init__(self, images: TrainingSet) -> None:
        self.images = images

    def __getitem__(self, positions: np.ndarray) -> tuple[Tensor, Tensor] | str:
        try:
            return torch.from_numpy(positions), torch.from_numpy(self.images.take(positions))
        except TruelikeError as error:
            return str(error)


def fetched(
    images: TrainingSet, batches: Iterable[np.ndarray], workers: int | None = None
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Positions and pixels, uint8 (B, H, W, 3), of batches of positions in their order, taken ahead
    by `workers` processes (default: the cores of this process; none within a worker process).

    Pixels are in pinned memory where there is a GPU. Raises TruelikeError as `take` does.
    """
    if current_process().daemon:  # such a process may start no others
        workers = 0
    loader = DataLoader(
        _Taken(images),
        batch_size=None,
        sampler=batches,
        num_workers=own_cores() if workers is None else workers,
        pin_memory=device().type == "cuda",
        generator=torch.Generator(),  # leaves torch's own generator alone
    )
    for item in loader:
        if isinstance(item, str):
            raise TruelikeError(item)
        positions, pixels = item
        yield positions.numpy(), pixels


def one_by_one(images: Images, positions: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Images at these positions (None: all, in order), each uint8 (H, W, 3)."""
    chosen = np.arange(len(images)) if positions is None else positions
    parts = [chosen[start : start + PART] for start in range(0, len(chosen), PART)]
    if isinstance(images, StoredImages):
        yield from (image for _, part in fetched(images, parts) for image in part.numpy())
    else:
        yield from (image for part in parts for image in images.take(part))

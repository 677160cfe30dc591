"""Labelled images that networks are trained on, decoded once into the scratch folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import stack_on_disk


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images: uint8 of shape (N, H, W, 3); labels, int64 of shape (N,), or soft ones,
    float32 (N, K).
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        return self.pixels[positions]


@dataclass(frozen=True)
class Union:
    """Two sets of images as one, those of the second after those of the first; no pixels are
    copied.
    """

    first: LabelledImages
    second: LabelledImages

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([self.first.labels, self.second.labels])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        behind = positions - len(self.first)
        chosen = np.empty((len(positions), *self.first.pixels.shape[1:]), np.uint8)
        chosen[behind < 0] = self.first.take(positions[behind < 0])
        chosen[behind >= 0] = self.second.take(behind[behind >= 0])
        return chosen


TrainingSet = LabelledImages | Union


def resized(pixels: np.ndarray, resolution: int | None) -> np.ndarray:
    """Square pixels (H, H, 3) scaled to a side of `resolution`, antialiased; None leaves them."""
    if resolution in (None, len(pixels)):
        return pixels
    size = (resolution, resolution)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def load_images(images: ImageSet, resolution: int | None = None) -> LabelledImages:
    """Decode a whole image set into the scratch folder, at a resolution (None: its own)."""
    pixels = (resized(images.pixels(position), resolution) for position in range(len(images)))
    return LabelledImages(stack_on_disk(pixels), images.labels)


def load_kept(
    selection: pd.DataFrame, class_names: Sequence[str], resolution: int | None = None
) -> LabelledImages:
    """Decode the images that a selection table keeps into the scratch folder, with the table's
    labels, at a resolution (None: their own).

    Raises TruelikeError where the sets' class names differ.
    """
    places: list[tuple[ImageSet, int]] = []
    kept_labels: list[int] = []
    for folder, rows in selection[selection["keep"]].groupby("folder", sort=False):
        images = ImageSet(Path(str(folder)))
        if images.class_names != list(class_names):
            raise TruelikeError(
                f"{folder}: its classes are not those of the real training images; run `dvc repro`"
            )
        labels = dict(zip(rows["key"], rows["label"], strict=True))
        places += [(images, position) for position, key in enumerate(images.keys) if key in labels]
        kept_labels += [labels[key] for key in images.keys if key in labels]
    pixels = stack_on_disk(
        resized(images.pixels(position), resolution) for images, position in places
    )
    return LabelledImages(pixels, np.array(kept_labels, dtype=np.int64))

"""Images a second that reach a network's input, against timm's loader: ``python -m
benchmarks.loading [--images 512] [--workers 2]``.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from timm.data import create_loader
from timm.data.dataset import ImageDataset

from benchmarks import Cost, compare, cost, write
from benchmarks.training import usual_augmentation
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, encode_png, write_image_set
from truelike.training.augmentation import augment
from truelike.training.images import Images, fetched, load_images
from truelike.training.settings import Optimization

SIDE, DETAIL = 512, 64  # pixels of the stored images, and of the noise that they are enlarged from
CLASSES = [f"class-{number}" for number in range(10)]
MEAN = STD = (0.5, 0.5, 0.5)


def samples(count: int) -> Iterator[Sample]:
    """Images of enlarged noise, of which a PNG has a photo's size: about 0.4 MB."""
    draw = np.random.default_rng(0)
    for number in range(count):
        noise = draw.integers(0, 256, (DETAIL, DETAIL, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        yield Sample(f"{number:06d}", number % len(CLASSES), pixels)


def write_both(folder: Path, count: int) -> ImageSet:
    """The same images as an image set in ``set`` and as an image folder in ``files``."""
    images = list(samples(count))
    write_image_set(folder / "set", images, CLASSES)
    for name in CLASSES:
        (folder / "files" / name).mkdir(parents=True)
    for image in images:
        place = folder / "files" / CLASSES[image.label]
        (place / f"{image.key}.png").write_bytes(encode_png(image.pixels))
    return ImageSet(folder / "set")


def orders(count: int, passes: int, batch_size: int) -> Iterator[np.ndarray]:
    """Positions of whole batches in a new order in each pass."""
    draw = np.random.default_rng(0)
    for _ in range(passes):
        order = draw.permutation(count)
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def timm_inputs(
    folder: Path, passes: int, optimization: Optimization, size: int, workers: int
) -> int:
    """Read `passes` epochs as timm's training script does; returns the number of images."""
    loader = create_loader(
        ImageDataset(str(folder)),
        input_size=(3, size, size),
        batch_size=optimization.batch_size,
        is_training=True,
        use_prefetcher=False,
        num_workers=workers,
        **usual_augmentation(optimization),
        mean=MEAN,
        std=STD,
        persistent_workers=workers > 0,
    )
    return sum(len(inputs) for _ in range(passes) for inputs, _ in loader)


def our_inputs(
    images: Images, passes: int, optimization: Optimization, workers: int, crop: bool = True
) -> int:
    """Read as many images as the stage `train` does, decoded before or now, and crop them or leave
    that to a GPU; returns their number.
    """
    rng, count = torch.Generator().manual_seed(0), 0
    batches = orders(len(images), passes, optimization.batch_size)
    streamed = fetched(images, batches, workers) if optimization.streaming else None
    taken = streamed or ((own, torch.from_numpy(images.take(own))) for own in batches)
    for _, pixels in taken:
        if crop:
            augment(pixels.permute(0, 3, 1, 2), optimization, MEAN, STD, rng)
        count += len(pixels)
    return count


def rows(costs: dict[str, Cost], images: int, usual: str) -> list[str]:
    """The lines of a table: images a second, and of one CPU second, and times timm's."""
    lines = ["| | images a second | images a CPU second | times faster |", "|---|---|---|---|"]
    for name, spent in costs.items():
        ratio = costs[usual].wall / spent.wall
        speeds = f"{images / spent.wall:.0f} | {images / spent.cpu:.0f}"
        lines.append(f"| {name} | {speeds} | {ratio:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=224, help="pixels of the network's inputs")
    given = parser.parse_args()
    kept = load_params("recipes/default.yaml").train.optimization
    streamed = kept.model_copy(update={"streaming": True})
    with (
        tempfile.TemporaryDirectory() as temporary,
        patch.dict(os.environ, DVC_ROOT=temporary),
    ):
        stored = write_both(Path(temporary), given.images)
        loaded: list[Images] = []
        decoding = cost(lambda: loaded.append(load_images(stored, given.size)))
        lazy = load_images(stored, given.size, streaming=True)
        files = Path(temporary) / "files"
        costs = compare(
            {
                "timm": partial(timm_inputs, files, given.passes, kept, given.size, given.workers),
                "truelike, decoded once": partial(
                    our_inputs, loaded[0], given.passes, kept, given.workers
                ),
                "truelike, streaming": partial(
                    our_inputs, lazy, given.passes, streamed, given.workers
                ),
                "truelike, streaming, not cropped": partial(
                    our_inputs, lazy, given.passes, streamed, given.workers, crop=False
                ),
            },
            3,
        )
    read = sum(map(len, orders(given.images, given.passes, kept.batch_size)))
    once = f"Decoding all {given.images} images once took {decoding.wall:.1f} s."
    write("loading", [*rows(costs, read, "timm"), "", once])


if __name__ == "__main__":
    main()

"""Draws the embedded data set, ``data/fashion``: a small user's images in their original look,
light on black.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from foundation.attributes import CLASS_NAMES
from foundation.paths import FASHION
from foundation.settings import Fashion, Settings
from foundation.source import digest, read_images, read_labels

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": list(CLASS_NAMES), "_type": "ClassLabel"},
}
SCHEMA = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def draw(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    candidates: NDArray[np.int64],
    per_class: int,
    rng: np.random.Generator,
    seen: set[bytes],
) -> list[int]:
    """Draw ``per_class`` indices of each class in random order, skipping images whose digest is in
    ``seen``.
    """
    chosen = []
    for label in range(len(CLASS_NAMES)):
        left = per_class
        for index in rng.permutation(candidates[labels[candidates] == label]):
            identity = digest(images[index])
            if left and identity not in seen:
                seen.add(identity)
                chosen.append(int(index))
                left -= 1
    return sorted(chosen)


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode a grey image losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def splits(settings: Fashion) -> dict[str, tuple[str, list[int]]]:
    """Choose the images of each split: split name to (idx file, indices in it); no two are
    equal.
    """
    rng = np.random.default_rng(settings.seed)
    train, train_labels = read_images("train"), read_labels("train")
    test, test_labels = read_images("t10k"), read_labels("t10k")
    pool = np.arange(settings.pool_start, len(train))
    seen: set[bytes] = set()
    chosen = draw(train, train_labels, pool, settings.train_per_class, rng, seen)
    pool = np.setdiff1d(pool, chosen)
    validation = draw(train, train_labels, pool, settings.validation_per_class, rng, seen)
    tested = draw(test, test_labels, np.arange(len(test)), settings.test_per_class, rng, seen)
    return {
        "train": ("train", chosen),
        "validation": ("train", validation),
        "test": ("t10k", tested),
    }


def write(path: Path, name: str, indices: list[int]) -> None:
    """Write images of an idx file as parquet in the Hugging Face image layout; paths name the
    original index.
    """
    images, labels = read_images(name), read_labels(name)
    official = "train" if name == "train" else "test"
    rows = [
        {
            "image": {"bytes": png(images[i]), "path": f"{official}-{i:05d}.png"},
            "label": int(labels[i]),
        }
        for i in indices
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def main() -> None:
    FASHION.mkdir(parents=True, exist_ok=True)
    for split, (name, indices) in splits(Settings.load().fashion).items():
        write(FASHION / f"{split}-00000-of-00001.parquet", name, indices)


if __name__ == "__main__":
    main()

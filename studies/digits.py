"""Writes ``data/digits``, the set that nobody tuned on: scikit-learn's digits; run
``python -m studies.digits``.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path("data/digits/data")
CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": CLASS_NAMES, "_type": "ClassLabel"}}
SCHEMA = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
TEST, VALIDATION = 1_000, 200


def png(image: np.ndarray) -> bytes:
    """Encode an image of 17 grey levels, 0 to 16, losslessly: 0 is black and 16 white."""
    buffer = io.BytesIO()
    Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def splits(labels: np.ndarray) -> dict[str, np.ndarray]:
    """The positions of each split's images, drawn at random with equal class shares."""
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION, stratify=labels[rest], random_state=0
    )
    return {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}


def main() -> None:
    digits = load_digits()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for split, positions in splits(digits.target).items():
        rows = [
            {
                "image": {"bytes": png(digits.images[i]), "path": f"{i:04d}.png"},
                "label": int(digits.target[i]),
            }
            for i in positions
        ]
        pq.write_table(
            pa.Table.from_pylist(rows, schema=SCHEMA), FOLDER / f"{split}-00000-of-00001.parquet"
        )


if __name__ == "__main__":
    main()

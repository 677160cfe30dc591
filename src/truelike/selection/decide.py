"""Decides which images of a set are kept: a table with a reason per row; no image is deleted or copied."""

import numpy as np
import pandas as pd

from truelike.data.imageset import ImageSet
from truelike.selection.scores import CopyLimits


def undecided(images: ImageSet) -> pd.DataFrame:
    """A selection table that keeps every image and scores none."""
    return pd.DataFrame(
        {
            "key": pd.Series(images.keys, dtype="str"),
            "folder": pd.Series([images.folder.as_posix()] * len(images), dtype="str"),
            "label": images.labels,
            "class_probability": np.full(len(images), np.nan, np.float32),
            "nearest_key": pd.Series([""] * len(images), dtype="str"),
            "nearest_similarity": np.full(len(images), np.nan, np.float32),
            "keep": np.ones(len(images), bool),
            "reason": pd.Series([""] * len(images), dtype="str"),
        }
    )


def decide(
    table: pd.DataFrame, distance: np.ndarray, min_class_probability: float, limits: CopyLimits | None
) -> pd.DataFrame:
    """Fill `keep` and `reason` of a scored table.

    `distance`: pixel distance of each image to the training image in `nearest_key`; `limits` None keeps near copies.
    """
    reasons = [""] * len(table)
    if limits is not None:
        copies = (table["nearest_similarity"].to_numpy() >= limits.similarity) & (distance <= limits.distance)
        reasons = [
            f"near-copy of {key}" if copy else "" for key, copy in zip(table["nearest_key"], copies, strict=True)
        ]
    reasons = [
        f"label: {value:.3g} < {min_class_probability:g}" if value < min_class_probability else reason
        for value, reason in zip(table["class_probability"], reasons, strict=True)
    ]
    return table.assign(reason=pd.Series(reasons, dtype="str"), keep=[not reason for reason in reasons])

"""Decides which images of a set are kept: a table with a reason per row; no image is deleted or copied."""

from collections.abc import Sequence

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


def relabel(table: pd.DataFrame, probabilities: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """Give each image its most probable class by `probabilities` (N, K), and say in `reason` what it was."""
    labels = probabilities.argmax(1)
    reasons = [
        "" if old == new else f"relabelled from {class_names[old]}"
        for old, new in zip(table["label"], labels, strict=True)
    ]
    return table.assign(label=labels, reason=pd.Series(reasons, dtype="str"))


def decide(
    table: pd.DataFrame, distance: np.ndarray, min_class_probability: float, limits: CopyLimits | None
) -> pd.DataFrame:
    """Fill `keep` of a scored table, and `reason` of what is dropped.

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
    keep = [not reason for reason in reasons]
    told = [reason or before for reason, before in zip(reasons, table["reason"], strict=True)]
    return table.assign(reason=pd.Series(told, dtype="str"), keep=keep)

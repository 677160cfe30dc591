"""Decides which images of a set are kept: a table with a reason per row; no image is deleted or
copied.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from truelike.selection.copies import CopyLimits


def relabel(
    table: pd.DataFrame, probabilities: np.ndarray, class_names: Sequence[str]
) -> pd.DataFrame:
    """Give each image its most probable class by `probabilities` (N, K), and say in `reason` what
    it was.
    """
    labels = probabilities.argmax(1)
    reasons = [
        "" if old == new else f"relabelled from {class_names[old]}"
        for old, new in zip(table["label"], labels, strict=True)
    ]
    return table.assign(label=labels, reason=pd.Series(reasons, dtype="str"))


def decide(
    table: pd.DataFrame,
    distance: np.ndarray,
    min_class_probability: float,
    limits: CopyLimits | None,
) -> pd.DataFrame:
    """Fill `keep` of a scored table, and `reason` of what is dropped.

    `distance`: pixel distance of each image to the training image in `nearest_key`; `limits` None
    keeps near copies.
    """
    reasons = [""] * len(table)
    if limits is not None:
        copies = (table["nearest_similarity"].to_numpy() >= limits.similarity) & (
            distance <= limits.distance
        )
        reasons = [
            f"near-copy of {key}" if copy else ""
            for key, copy in zip(table["nearest_key"], copies, strict=True)
        ]
    reasons = [
        f"label: {value:.3g} < {min_class_probability:g}"
        if value < min_class_probability
        else reason
        for value, reason in zip(table["class_probability"], reasons, strict=True)
    ]
    keep = [not reason for reason in reasons]
    reasons = [reason or before for reason, before in zip(reasons, table["reason"], strict=True)]
    return table.assign(reason=pd.Series(reasons, dtype="str"), keep=keep)

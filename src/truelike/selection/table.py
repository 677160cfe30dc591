"""The selection table: a row per synthetic image, with what it is judged by and whether it is kept."""

import numpy as np
import pandas as pd

from truelike.data.imageset import ImageSet


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

"""The features of images, and samples of them at one size."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Features:
    """Some images: keys, labels (N,), encoder features `values` (N, D) and `low_level` statistics
    (N, S).
    """

    keys: list[str]
    labels: np.ndarray
    values: np.ndarray
    low_level: np.ndarray

    def take(self, positions: np.ndarray) -> "Features":
        """The images at these positions, in this order."""
        keys = [self.keys[position] for position in positions]
        return Features(
            keys, self.labels[positions], self.values[positions], self.low_level[positions]
        )


def class_sample(features: Features, counts: np.ndarray, rng: np.random.Generator) -> Features:
    """`counts[c]` images of each class c, drawn without replacement."""
    drawn = [
        rng.choice(np.flatnonzero(features.labels == label), count, replace=False)
        for label, count in enumerate(counts)
    ]
    return features.take(np.sort(np.concatenate(drawn)))

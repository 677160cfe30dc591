"""The features of images, and samples of them at one size."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Features:
    """Some images: keys, labels (N,), encoder features `values` (N, D) and `low_level` statistics
    (N, S), and the keys of the real images they were made from, of real images their own.
    """

    keys: list[str]
    sources: list[str]
    labels: np.ndarray
    values: np.ndarray
    low_level: np.ndarray

    def take(self, positions: np.ndarray) -> "Features":
        """The images at these positions, in this order."""
        keys, sources = (
            [names[position] for position in positions] for names in (self.keys, self.sources)
        )
        return Features(
            keys, sources, self.labels[positions], self.values[positions], self.low_level[positions]
        )


def class_sample(features: Features, counts: np.ndarray, rng: np.random.Generator) -> Features:
    """`counts[c]` images of each class c, drawn without replacement."""
    drawn = [
        rng.choice(np.flatnonzero(features.labels == label), count, replace=False)
        for label, count in enumerate(counts)
    ]
    return features.take(np.sort(np.concatenate(drawn)))

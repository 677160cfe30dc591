"""How near a synthetic image is to a real training image, and how near is too near."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from truelike.features.neighbours import nearest
from truelike.training.images import Images, one_by_one


@dataclass(frozen=True)
class CopyLimits:
    """How alike two images must be to count as near copies: cosine similarity above, pixel distance
    below.
    """

    similarity: float
    distance: float


def pixel_distance(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> np.ndarray:
    """Root mean square difference of pairs of N uint8 images (H, W, 3), in grey levels: float64 of
    shape (N,).
    """
    squares = [
        np.mean((a.astype(np.float32) - b) ** 2, dtype=np.float64)
        for a, b in zip(first, second, strict=True)
    ]
    return np.sqrt(np.array(squares))


def copy_limits(features: np.ndarray, real: Images) -> CopyLimits:
    """Calibrate the limits on the real training images: nearer than distinct real images are to
    each other.

    For each image its most similar other one; the limits are the 99.9th percentile of these
    similarities and the 0.1th of these pixel distances, so one accidental pair in a thousand does
    not move them. Ours, not a paper's.
    """
    positions, similarity = nearest(features, features, exclude_self=True)
    distance = pixel_distance(one_by_one(real), one_by_one(real, positions))
    return CopyLimits(float(np.quantile(similarity, 0.999)), float(np.quantile(distance, 0.001)))

"""Precision, density, recall and coverage: which images of one sample lie among those of another.

Samples are float arrays of feature vectors, shape (N, D), real before synthetic.
"""

import numpy as np

from truelike.audit.blocks import distances, map_blocks


def manifold_metrics(real: np.ndarray, fake: np.ndarray, neighbours: int) -> dict[str, np.ndarray]:
    """What each image adds to precision, density (shape (N_fake,)), recall and coverage (shape
    (N_real,)): their means.

    With B(x) the ball around x that reaches its k-th nearest neighbour in its own sample: precision
    = share of fake images in some B(real); recall = share of real images in some B(fake)
    (Kynkäänniemi et al., NeurIPS 2019, equation 1); density = mean number of B(real) around a fake
    image, over k; coverage = share of B(real) that hold a fake image (Naeem et al., ICML 2020,
    equations 3 and 4). Both samples need more than `neighbours` images.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_radius, fake_radius = _radii(real, neighbours), _radii(fake, neighbours)

    def block(rows: slice) -> np.ndarray:
        distance = distances(real[rows], fake)
        covered[rows] = distance.min(1) < real_radius[rows]
        recalled[rows] = (distance < fake_radius).any(1)
        return (distance < real_radius[rows, None]).sum(0)

    covered, recalled = np.zeros(len(real)), np.zeros(len(real))
    balls = np.zeros(len(fake))
    for counts in map_blocks(block, len(real), len(fake)):
        balls += counts
    return {
        "precision": (balls > 0).astype(float),
        "recall": recalled,
        "density": balls / neighbours,
        "coverage": covered,
    }


def _radii(values: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each vector to its k-th nearest other one."""

    def block(rows: slice) -> np.ndarray:
        distance = distances(values[rows], values)
        distance[np.arange(len(distance)), np.arange(rows.start, rows.stop)] = np.inf
        distance.partition(neighbours - 1, axis=1)
        return distance[:, neighbours - 1].copy()  # a view would keep the whole block

    return np.concatenate(list(map_blocks(block, len(values), len(values))))

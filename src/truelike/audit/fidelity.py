"""How alike, and how varied, samples of feature vectors are: float arrays of shape (N, D), real
before synthetic.

Memory at N = 100,000 per sample and D = 1,024: 0.8 GiB for two samples in float32, 1.5 GiB for
their float64 copies and a few temporaries of BLOCK numbers (64 MiB each) per worker, so below 4
GiB; nothing of size N x N is ever held.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

BLOCK = 2**23  # numbers in one block of a matrix between two samples
WORKERS = min(4, os.cpu_count() or 1)  # blocks at once


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` that, times `columns`, stay within BLOCK numbers."""
    size = max(1, BLOCK // max(1, columns))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def map_blocks(function: Callable[[slice], Any], rows: int, columns: int) -> Iterator[Any]:
    """`function` of all `blocks`, in their order, WORKERS at once, since numpy computes outside the
    lock.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(function, blocks(rows, columns))


def moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D), divided by the sum of weights less 1, of vectors that count
    `weights` times.
    """
    total = weights.sum()
    mean = weights @ values / total
    covariance = np.zeros((values.shape[1], values.shape[1]))
    for rows in blocks(*values.shape):
        centred = values[rows] - mean
        covariance += (centred * weights[rows, None]).T @ centred
    return mean, covariance / (total - 1)


def frechet_distance(
    real: np.ndarray, fake: np.ndarray, counts: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """||m_r - m_f||^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)), the squared Fréchet distance of two
    fitted Gaussians.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, equation 6.
    Covariances are divided by N - 1. Its bias depends on N: compare only values at equal sizes. A
    scalar; with `counts`, how often each vector counts in each of B resamples (B, N_real) and (B,
    N_fake), the values of all of these, shape (B,).
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    if counts is None:
        return np.asarray(
            _frechet(*moments(real, np.ones(len(real))), *moments(fake, np.ones(len(fake))))
        )
    pairs = zip(*counts, strict=True)
    return np.array(
        [_frechet(*moments(real, first), *moments(fake, second)) for first, second in pairs]
    )


def _frechet(
    mean_real: np.ndarray, cov_real: np.ndarray, mean_fake: np.ndarray, cov_fake: np.ndarray
) -> float:
    values, vectors = np.linalg.eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_fake @ root), 0, None)).sum()
    shift = mean_real - mean_fake
    return float(max(shift @ shift + np.trace(cov_real) + np.trace(cov_fake) - 2 * cross, 0.0))


def vendi_score(values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """exp(-sum_i l_i log l_i), l the eigenvalues of K / N, K the cosine similarities: how many
    different vectors.

    Friedman and Dieng, "The Vendi Score", TMLR 2023, equation 1. Between 1 and min(N, D): K / N and
    the D x D matrix of second moments have the same eigenvalues but zeros, so no N x N matrix is
    needed. A scalar; with `counts` (B, N) the values of B resamples.
    """
    length = np.linalg.norm(values, axis=1, keepdims=True)
    directions = values.astype(np.float64) / np.where(length > 0, length, 1)

    def score(weights: np.ndarray) -> float:
        eigenvalues = np.linalg.eigvalsh(
            (directions * weights[:, None]).T @ directions / weights.sum()
        )
        positive = eigenvalues[eigenvalues > 1e-12]
        return float(np.exp(-(positive * np.log(positive)).sum()))

    if counts is None:
        return np.asarray(score(np.ones(len(values))))
    return np.array([score(weights) for weights in counts])


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
    for found in map_blocks(block, len(real), len(fake)):
        balls += found
    return {
        "precision": (balls > 0).astype(float),
        "recall": recalled,
        "density": balls / neighbours,
        "coverage": covered,
    }


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances between all vectors of two samples, shape (N_first, N_second)."""
    squares = first @ second.T
    squares *= -2
    squares += (first**2).sum(1)[:, None]
    squares += (second**2).sum(1)
    return np.sqrt(np.clip(squares, 0, None, out=squares), out=squares)


def _radii(values: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each vector to its k-th nearest other one."""

    def block(rows: slice) -> np.ndarray:
        distance = distances(values[rows], values)
        distance[np.arange(len(distance)), np.arange(rows.start, rows.stop)] = np.inf
        distance.partition(neighbours - 1, axis=1)
        return distance[:, neighbours - 1].copy()  # a view would keep the whole block

    return np.concatenate(list(map_blocks(block, len(values), len(values))))

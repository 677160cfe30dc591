"""Distances between the feature distributions of two samples (N, D), real before synthetic: FID
(Fréchet), KID (MMD, cubic kernel) and CMMD (MMD, Gaussian kernel), on the features of
``models.encoder``.
"""

from collections.abc import Callable

import numpy as np

from truelike.audit.blocks import blocks, distances

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
MEDIAN_OF = 1000


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
    distance = _frechet_of_few if max(len(real), len(fake)) <= real.shape[1] else _frechet
    if counts is None:
        return np.asarray(distance(real, np.ones(len(real)), fake, np.ones(len(fake))))
    pairs = zip(*counts, strict=True)
    return np.array([distance(real, first, fake, second) for first, second in pairs])


def _frechet(
    real: np.ndarray, real_weights: np.ndarray, fake: np.ndarray, fake_weights: np.ndarray
) -> float:
    mean_real, cov_real = moments(real, real_weights)
    mean_fake, cov_fake = moments(fake, fake_weights)
    values, vectors = np.linalg.eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_fake @ root), 0, None)).sum()
    shift = mean_real - mean_fake
    return float(max(shift @ shift + np.trace(cov_real) + np.trace(cov_fake) - 2 * cross, 0.0))


def _frechet_of_few(
    real: np.ndarray, real_weights: np.ndarray, fake: np.ndarray, fake_weights: np.ndarray
) -> float:
    """The same without D x D matrices: where C_r = A^T A and C_f = B^T B, with a row of A and B a
    vector, the square roots of the eigenvalues of C_r C_f are the singular values of A B^T.
    """
    mean_real, spread_real = _spread(real, real_weights)
    mean_fake, spread_fake = _spread(fake, fake_weights)
    cross = np.linalg.svd(spread_real @ spread_fake.T, compute_uv=False).sum()
    shift = mean_real - mean_fake
    traces = (spread_real**2).sum() + (spread_fake**2).sum()
    return float(max(shift @ shift + traces - 2 * cross, 0.0))


def _spread(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) of vectors that count `weights` times, and A (N, D) of which A^T A is their
    covariance.
    """
    total = weights.sum()
    mean = weights @ values / total
    return mean, np.sqrt(weights / (total - 1))[:, None] * (values - mean)


def polynomial(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """k(a, b) = (a.b / D + 1)^3, that of the kernel distance (Bińkowski et al., "Demystifying MMD
    GANs", ICLR 2018).
    """
    products = first @ second.T / first.shape[1] + 1
    return products * products * products


def rbf(bandwidth: float) -> Kernel:
    """k(a, b) = exp(-||a - b||^2 / (2 bandwidth^2)), that of CMMD (Jayasumana et al., "Rethinking
    FID", CVPR 2024).
    """

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        squares = distances(first, second) ** 2
        squares *= -0.5 / bandwidth**2
        return np.exp(squares, out=squares)

    return kernel


def median_distance(values: np.ndarray) -> float:
    """The median distance between two vectors, of at most 1,000 evenly spread ones: a bandwidth for
    `rbf`.

    Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, section 8.
    """
    chosen = values[
        np.linspace(0, len(values) - 1, min(len(values), MEDIAN_OF)).astype(int)
    ].astype(np.float64)
    return float(np.median(distances(chosen, chosen)[np.triu_indices(len(chosen), 1)]))


def kernel_distance(
    real: np.ndarray,
    fake: np.ndarray,
    kernel: Kernel,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Unbiased squared MMD (Gretton et al. 2012, lemma 6); may be slightly negative.

    A scalar; with `counts`, how often each vector counts in each of B resamples (B, N_real) and (B,
    N_fake), the values of all of these, shape (B,). A vector never pairs with itself, be it drawn
    twice, so resampling adds no bias.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    first, second = (np.ones((1, len(real))), np.ones((1, len(fake)))) if counts is None else counts
    between = _total(real, fake, kernel, first, second) / (first.sum(1) * second.sum(1))
    squared = _within(real, kernel, first) + _within(fake, kernel, second) - 2 * between
    return squared[0] if counts is None else squared


def _within(values: np.ndarray, kernel: Kernel, counts: np.ndarray) -> np.ndarray:
    pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
    return _total(values, values, kernel, counts, counts) / pairs


def _total(
    first: np.ndarray, second: np.ndarray, kernel: Kernel, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """sum_ij left_bi k(first_i, second_j) right_bj, shape (B,); without i = j where both are the
    same sample.
    """
    totals, columns = np.zeros(len(left)), right.T.astype(np.float64)
    for rows in blocks(len(first), len(second)):
        block = kernel(first[rows], second)
        if first is second:
            block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0
        totals += ((block @ columns) * left[:, rows].T).sum(0)
    return totals

"""How alike two samples of feature vectors are: float arrays of shape (N, D), the first real, the second synthetic."""

from collections.abc import Iterator

import numpy as np

CHUNK = 2048


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """||m_r - m_f||^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)), the squared Fréchet distance of two fitted Gaussians.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, equation 6. Covariances are divided by
    N - 1. Its bias depends on N: compare only values at equal sizes.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    cov_real, cov_fake = np.cov(real, rowvar=False).reshape(real.shape[1], -1), np.cov(fake, rowvar=False)
    cov_fake = cov_fake.reshape(cov_real.shape)
    values, vectors = np.linalg.eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_fake @ root), 0, None)).sum()
    shift = real.mean(0) - fake.mean(0)
    return float(max(shift @ shift + np.trace(cov_real) + np.trace(cov_fake) - 2 * cross, 0.0))


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel k(a, b) = (a.b / D + 1)^3; may be slightly negative.

    Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, equation 4 (Gretton et al. 2012, lemma 6).
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def total(a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(((part @ b.T / a.shape[1] + 1) ** 3).sum()) for part in _chunks(a))

    def within(a: np.ndarray) -> float:
        diagonal = ((a * a).sum(1) / a.shape[1] + 1) ** 3
        return (total(a, a) - float(diagonal.sum())) / (len(a) * (len(a) - 1))

    return within(real) + within(fake) - 2 * total(real, fake) / (len(real) * len(fake))


def manifold_metrics(real: np.ndarray, fake: np.ndarray, neighbours: int) -> tuple[dict[str, float], np.ndarray]:
    """Precision, recall, density and coverage, and which real images are covered (bool of shape (N,)).

    With B(x) the ball around x that reaches its k-th nearest neighbour in its own sample:
    precision = share of fake images in some B(real); recall = share of real images in some B(fake)
    (Kynkäänniemi et al., NeurIPS 2019, equation 1); density = mean number of B(real) around a fake image, over k;
    coverage = share of B(real) that hold a fake image (Naeem et al., ICML 2020, equations 3 and 4).
    Both samples need more than `neighbours` images.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_radius, fake_radius = _radii(real, neighbours), _radii(fake, neighbours)
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    balls = np.zeros(len(fake), np.int64)
    start = 0
    for part in _chunks(real):
        distance = _distances(part, fake)
        rows = slice(start, start + len(part))
        inside = distance < real_radius[rows, None]
        covered[rows] = distance.min(1) < real_radius[rows]
        recalled[rows] = (distance < fake_radius).any(1)
        balls += inside.sum(0)
        start += len(part)
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls.mean() / neighbours),
        "coverage": float(covered.mean()),
    }, covered


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.clip(squares, 0, None))


def _radii(values: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each vector to its k-th nearest other one."""
    radii, start = [], 0
    for part in _chunks(values):
        distance = _distances(part, values)
        distance[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        radii.append(np.partition(distance, neighbours - 1, axis=1)[:, neighbours - 1])
        start += len(part)
    return np.concatenate(radii)

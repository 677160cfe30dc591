"""How many different images a sample holds: the Vendi score of feature vectors (N, D)."""

import numpy as np


def vendi_score(values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """exp(-sum_i l_i log l_i), l the eigenvalues of K / N, K the cosine similarities: how many
    different vectors.

    Friedman and Dieng, "The Vendi Score", TMLR 2023, equation 1. Between 1 and min(N, D): K / N and
    the D x D matrix of second moments have the same eigenvalues but zeros, so that the smaller one
    is enough. A scalar; with `counts` (B, N) the values of B resamples.
    """
    length = np.linalg.norm(values, axis=1, keepdims=True)
    directions = values.astype(np.float64) / np.where(length > 0, length, 1)

    def score(weights: np.ndarray) -> float:
        if len(directions) < directions.shape[1]:
            scaled = directions * np.sqrt(weights)[:, None]
            matrix = scaled @ scaled.T
        else:
            matrix = (directions * weights[:, None]).T @ directions
        eigenvalues = np.linalg.eigvalsh(matrix / weights.sum())
        positive = eigenvalues[eigenvalues > 1e-12]
        return float(np.exp(-(positive * np.log(positive)).sum()))

    if counts is None:
        return np.asarray(score(np.ones(len(values))))
    return np.array([score(weights) for weights in counts])

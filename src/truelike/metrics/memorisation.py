"""Are synthetic images copies of training images? Nearest neighbours, against what new real images give."""

import numpy as np

CHUNK = 2048


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, D) scaled to length 1; vectors of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def nearest(features: np.ndarray, references: np.ndarray, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Position and cosine similarity of the most similar of `references` (M, D) for each of `features` (N, D).

    Returns int64 (N,) and float32 (N,). `exclude_self`: both are the same images, none its own neighbour.
    """
    base = unit(references)
    positions, similarities = [], []
    for start in range(0, len(features), CHUNK):
        similarity = unit(features[start : start + CHUNK]) @ base.T
        rows = np.arange(len(similarity))
        if exclude_self:
            similarity[rows, start + rows] = -np.inf
        best = similarity.argmax(1)
        positions.append(best)
        similarities.append(similarity[rows, best])
    return np.concatenate(positions), np.concatenate(similarities).astype(np.float32)


def copy_threshold(held_out_similarity: np.ndarray) -> float:
    """The nearest-neighbour similarity to the training images that 1 % of new real images exceed."""
    return float(np.quantile(held_out_similarity, 0.99))


def near_copy_rate(similarity: np.ndarray, threshold: float) -> float:
    """Share of images more similar to a training image than `threshold`; new real images give about 0.01."""
    return float(np.mean(similarity > threshold))

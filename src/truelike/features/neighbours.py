"""The nearest neighbours of images in an encoder's features."""

import numpy as np

CHUNK, BLOCK = 2048, 2**23  # rows at once, and numbers in their similarities


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, D) scaled to length 1; vectors of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def nearest(
    features: np.ndarray, references: np.ndarray, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Position and cosine similarity of the most similar of `references` (M, D) for each of
    `features` (N, D).

    Returns int64 (N,) and float32 (N,). `exclude_self`: both are the same images, none its own
    neighbour.
    """
    base = unit(references)
    positions, similarities = [], []
    size = max(1, min(CHUNK, BLOCK // len(base)))
    for start in range(0, len(features), size):
        similarity = unit(features[start : start + size]) @ base.T
        rows = np.arange(len(similarity))
        if exclude_self:
            similarity[rows, start + rows] = -np.inf
        best = similarity.argmax(1)
        positions.append(best)
        similarities.append(similarity[rows, best])
    return np.concatenate(positions), np.concatenate(similarities).astype(np.float32)

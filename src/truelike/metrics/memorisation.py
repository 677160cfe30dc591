"""Are synthetic images copies of training images? Nearest neighbours, against what new real images give."""

import numpy as np
from PIL import Image

CROPS = (15 / 16, 7 / 8)  # sides of the central crops
CHUNK, BLOCK = 2048, 2**23  # rows at once, and numbers in their similarities


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


def views(pixels: np.ndarray) -> list[np.ndarray]:
    """Images in the guises in which a copy may come: as they are, mirrored, and two central crops (ours).

    uint8 of shape (N, H, W, 3), each; a copy that was mirrored or cropped is near to one of these where the encoder
    itself takes it for another image.
    """
    return [pixels, pixels[:, :, ::-1], *(np.stack([_crop(image, side) for image in pixels]) for side in CROPS)]


def _crop(pixels: np.ndarray, side: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top = width * (1 - side) / 2, height * (1 - side) / 2
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box))


def authentic(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Which images are farther from their nearest reference than that is from its own nearest one: bool (N,).

    Alaa et al., "How Faithful is your Synthetic Data?", ICML 2022, section 3.3; the share in percent is the AuthPct of
    Stein et al., NeurIPS 2023. By cosine similarity, as all here; a generator that copies has few authentic images.
    """
    positions, similarity = nearest(features, references)
    own = nearest(references, references, exclude_self=True)[1]
    return similarity < own[positions]


def copy_threshold(held_out_similarity: np.ndarray) -> float:
    """The nearest-neighbour similarity to the training images that 1 % of new real images exceed."""
    return float(np.quantile(held_out_similarity, 0.99))


def near_copy_rate(similarity: np.ndarray, threshold: float) -> float:
    """Share of images more similar to a training image than `threshold`; new real images give about 0.01."""
    return float(np.mean(similarity > threshold))

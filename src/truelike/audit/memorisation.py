"""Are synthetic images copies of training images? Nearest neighbours, against what new real images
give.
"""

import numpy as np
from PIL import Image

from truelike.features.neighbours import nearest

CROPS = (15 / 16, 7 / 8)  # sides of the central crops


def views(pixels: np.ndarray) -> list[np.ndarray]:
    """Images in the guises in which a copy may come: as they are, mirrored, and two central crops
    (ours).

    uint8 of shape (N, H, W, 3), each; a copy that was mirrored or cropped is near to one of these
    where the encoder itself takes it for another image.
    """
    return [
        pixels,
        pixels[:, :, ::-1],
        *(np.stack([_crop(image, side) for image in pixels]) for side in CROPS),
    ]


def _crop(pixels: np.ndarray, side: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top = width * (1 - side) / 2, height * (1 - side) / 2
    box = (left, top, width - left, height - top)
    return np.asarray(
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box)
    )


def authentic(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Which images are farther from their nearest reference than that is from its own nearest one:
    bool (N,).

    Alaa et al., "How Faithful is your Synthetic Data?", ICML 2022, section 3.3; the share in
    percent is the AuthPct of Stein et al., NeurIPS 2023. By cosine similarity, as all here; a
    generator that copies has few authentic images.
    """
    positions, similarity = nearest(features, references)
    own = nearest(references, references, exclude_self=True)[1]
    return similarity < own[positions]


def copy_threshold(held_out_similarity: np.ndarray) -> float:
    """The nearest-neighbour similarity to the training images that 1 % of new real images
    exceed.
    """
    return float(np.quantile(held_out_similarity, 0.99))


def near_copy_rate(similarity: np.ndarray, threshold: float) -> float:
    """Share of images more similar to a training image than `threshold`; new real images give about
    0.01.
    """
    return float(np.mean(similarity > threshold))

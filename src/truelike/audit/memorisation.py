"""Memorisation: near-copies of training images among synthetic ones, by nearest neighbours, with
new real images as the baseline.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from truelike.audit.samples import Features
from truelike.evaluation.intervals import Interval, wilson_interval
from truelike.features.neighbours import nearest

# Of each image: the row of its nearest reference, and their cosine similarity.
Neighbours = tuple[np.ndarray, np.ndarray]
CROPS = (15 / 16, 7 / 8)  # sides of the central crops


def views(pixels: np.ndarray) -> list[np.ndarray]:
    """Views of images that a copy may be of: as they are, mirrored, and two central crops (ours).

    uint8 of shape (N, H, W, 3), each; the encoder may place a mirrored or cropped copy far from the
    original, but near one of these.
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
    between_references = nearest(references, references, exclude_self=True)[1]
    return similarity < between_references[positions]


def copy_threshold(held_out_similarity: np.ndarray) -> float:
    """The nearest-neighbour similarity to the training images that 1 % of new real images
    exceed.
    """
    return float(np.quantile(held_out_similarity, 0.99))


def clustered_interval(hits: np.ndarray, sources: Sequence[str], confidence: float) -> Interval:
    """The Wilson interval of a share of images (N,), of which those of one source are alike.

    It counts as many images as would be independent: N over the design effect, the variance of the
    share by sources (a ratio estimator) over that of independent images (Kish, "Survey Sampling",
    1965, section 8.2). Where all images or none are hits, the variance is not known, and it counts
    the sources.
    """
    rate, size = float(hits.mean()), len(hits)
    groups = pd.Series(hits.astype(float) - rate).groupby(np.asarray(sources)).sum().to_numpy()
    count = len(groups)
    if rate in (0, 1) or count == 1:
        return wilson_interval(rate, count, confidence)
    variance = count / (count - 1) * float((groups**2).sum()) / size**2
    effect = variance / (rate * (1 - rate) / size)
    return wilson_interval(rate, size / max(1.0, effect), confidence)


def near_copy_table(
    train_keys: Sequence[str], sets: Mapping[str, Features], neighbours: Mapping[str, Neighbours]
) -> pd.DataFrame:
    """Rows of set, key, nearest_key, similarity, the most similar images first.

    `neighbours` of each set are among all views of the training images, one view after the other.
    """
    keys = np.array(train_keys)
    tables = [
        pd.DataFrame(
            {
                "set": name,
                "key": features.keys,
                "nearest_key": keys[neighbours[name][0] % len(keys)],
                "similarity": neighbours[name][1],
            }
        )
        for name, features in sets.items()
    ]
    ranked = pd.concat(tables).sort_values(
        ["similarity", "set", "key"], ascending=[False, True, True]
    )
    return ranked.reset_index(drop=True)

"""Extracts what is compared of images: the features of the encoder and low-level
statistics.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from truelike.audit.appearance import low_level
from truelike.audit.memorisation import views
from truelike.audit.samples import Features
from truelike.features.encoder import Encoder, open_encoder
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.runtime.hub import Model


def extract(
    sets: Sequence[ImageSet],
    encoder: Model,
    batch_size: int,
    kept: Mapping[str, int] | None = None,
) -> Features:
    """The features of the images of several sets; where `kept` is given of its keys alone, with its
    labels.
    """
    columns = [
        map_images(images, open_encoder, encoder, batch_features, batch_size, "audit")
        for images in sets
    ]
    values, statistics = (
        np.concatenate([column[name] for column in columns]) for name in ("embedding", "low_level")
    )
    keys = [key for images in sets for key in images.keys]
    tables = [images.index for images in sets]
    sources = [key for table in tables for key in table.get("source_key", table["key"])]
    labels = np.concatenate([images.labels for images in sets])
    if kept is not None:
        labels = np.array([kept.get(key, -1) for key in keys], np.int64)
    features = Features(keys, sources, labels, values, statistics)
    return features.take(np.flatnonzero(labels >= 0))


def extract_views(images: ImageSet, encoder: Model, batch_size: int) -> np.ndarray:
    """Features of all images in each of `views`, one view after the other: float32 (V * N, D)."""
    columns = map_images(images, open_encoder, encoder, view_features, batch_size, "audit views")
    return np.concatenate(list(columns.values()))


def batch_features(encoder: Encoder, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The features and the low-level statistics of a batch."""
    return {"embedding": encoder.embed(pixels, len(pixels)), "low_level": low_level(pixels)}


def view_features(encoder: Encoder, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The features of a batch in each view."""
    return {
        f"view {number}": encoder.embed(view, len(view))
        for number, view in enumerate(views(pixels))
    }

"""Scores image sets against the real training images and decides on each."""

from pathlib import Path

import numpy as np
import pandas as pd

from truelike.features.encoder import features, open_encoder
from truelike.features.neighbours import nearest
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_features, undecided
from truelike.runtime.hub import Model
from truelike.selection.copies import copy_limits, pixel_distance
from truelike.selection.decisions import decide, relabel
from truelike.selection.judge import Judge
from truelike.selection.settings import Select
from truelike.training.images import load_images, one_by_one

ENCODER_BATCH = 64


def select(
    sets: list[ImageSet],
    train: ImageSet,
    features_file: Path,
    settings: Select,
    encoder: Model,
    judge: Judge,
) -> pd.DataFrame:
    """The selection table of some image sets, judged with nothing but the real training images."""
    real = load_images(train, judge.optimization.resolution, judge.optimization.streaming)
    real_features = read_features(features_file, train.keys)
    limits = copy_limits(real_features, real)
    loaded = [
        load_images(images, judge.optimization.resolution, judge.optimization.streaming)
        for images in sets
    ]
    judged = judge.class_probabilities(real, len(train.class_names), loaded)
    tables = []
    for images, decoded, probabilities in zip(sets, loaded, judged, strict=True):
        found = map_images(images, open_encoder, encoder, features, ENCODER_BATCH, "select")
        positions, similarity = nearest(found["embedding"], real_features)
        table = undecided(images)
        if settings.relabel:
            table = relabel(table, probabilities, train.class_names)
        table = table.assign(
            class_probability=probabilities[np.arange(len(table)), table["label"]],
            nearest_key=np.array(train.keys)[positions],
            nearest_similarity=similarity,
        )
        distance = pixel_distance(one_by_one(decoded), one_by_one(real, positions))
        chosen = limits if settings.drop_near_copies else None
        tables.append(decide(table, distance, settings.min_class_probability, chosen))
    return pd.concat(tables, ignore_index=True)

"""Learning curves of a linear probe on each set of images, and what the sets are worth in real
images.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from truelike.audit.compare import CONFIDENCE, Features
from truelike.audit.probe import few_shot_hits
from truelike.audit.scaling import FEWEST_SIZES, fit_power_law, real_equivalent
from truelike.evaluation.intervals import Interval, bootstrap_means, percentile_interval

REPEATS = 5
MOST_IMAGES = 20_000  # that a probe is fitted on
FARTHEST = 4  # times as many real images as there are


def curve_sizes(labels: np.ndarray) -> list[int]:
    """1, 2, 4, ... images per class, up to what the smallest class has or a probe should be fitted
    on.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    most = min(int(counts.min()), max(1, MOST_IMAGES // len(counts)))
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*sizes, most]


def learning_curves(
    train: Features, sets: Mapping[str, Features], held_out: str, bootstrap: int, seed: int
) -> tuple[pd.DataFrame, dict[str, Interval | None]]:
    """Accuracy on the `held_out` set of probes fitted on real training images and on each other
    set, by their number.

    Returns rows of set, images_per_class, accuracy, low, high (percent; `real` are the training
    images), and for each other set all of whose images are used the number of real images per class
    that give its accuracy.
    """
    test = sets[held_out].values, sets[held_out].labels
    rows, worth = [], {}
    real_sizes = np.array(curve_sizes(train.labels))
    trained = {held_out: train} | {
        name: features for name, features in sets.items() if name != held_out
    }
    means, draws = {}, {}
    for name, features in trained.items():
        sizes = curve_sizes(features.labels)
        hits = few_shot_hits((features.values, features.labels), test, sizes, REPEATS, seed)
        means[name] = hits.mean((1, 2))
        draws[name] = np.stack([bootstrap_means(own, bootstrap, seed) for own in hits], axis=1)
        for size, mean, drawn in zip(sizes, means[name], draws[name].T, strict=True):
            interval = percentile_interval(float(mean), drawn, CONFIDENCE)
            rows.append((name, size, interval.value, interval.low, interval.high))
    enough = len(real_sizes) >= FEWEST_SIZES
    if enough:
        curve = fit_power_law(real_sizes, means[held_out])
        curves = [fit_power_law(real_sizes, drawn) for drawn in draws[held_out]]
    for name in list(trained)[1:]:
        reached, drawn = float(means[name][-1]), draws[name][:, -1]
        farthest = FARTHEST * float(real_sizes[-1])
        worth[name] = (
            real_equivalent(curve, curves, reached, drawn, farthest, CONFIDENCE) if enough else None
        )
    return pd.DataFrame(rows, columns=["set", "images_per_class", "accuracy", "low", "high"]), worth

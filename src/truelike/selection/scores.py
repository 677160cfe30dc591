"""Scores of one synthetic image each: how probable its class is, and how near it is to a training
image.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from truelike.features.neighbours import nearest
from truelike.training.loop import LabelledImages, Recipe, fit, one_thread, predict
from truelike.training.networks import open_classifier
from truelike.training.settings import Phase


@dataclass(frozen=True)
class Judge:
    """A classifier trained on the real training images, which says how probable an image's classes
    are.
    """

    classifier: str
    num_classes: int
    real: LabelledImages
    steps: int
    seed: int

    def class_probabilities(self, sets: list[LabelledImages]) -> list[np.ndarray]:
        """The probability of every class for each image, float32 of shape (N, K) per set.

        The network starts from random weights and sees training images only; predictions are of the
        plain image.
        """
        recipe = Recipe(
            steps=self.steps,
            batch_size=64,
            optimizer="adamw",
            lr=2e-3,
            schedule="cosine",
            weight_decay=0.05,
            label_smoothing=0.1,
            warmup_fraction=0.05,
            crop_scale=0.6,
            flip=True,
        )
        size = self.real.pixels.shape[1]
        with one_thread():
            model = fit(
                lambda: open_classifier(
                    self.classifier, self.num_classes, pretrained=False, resolution=size
                ),
                lambda phase: [self.real],
                [Phase(on="real")],
                recipe,
                self.seed,
            )
            return [predict(model, images.pixels) for images in sets]


@dataclass(frozen=True)
class CopyLimits:
    """How alike two images must be to count as near copies: cosine similarity above, pixel distance
    below.
    """

    similarity: float
    distance: float


def pixel_distance(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> np.ndarray:
    """Root mean square difference of pairs of N uint8 images (H, W, 3), in grey levels: float64 of
    shape (N,).
    """
    squares = [
        np.mean((a.astype(np.float32) - b) ** 2, dtype=np.float64)
        for a, b in zip(first, second, strict=True)
    ]
    return np.sqrt(np.array(squares))


def copy_limits(features: np.ndarray, pixels: np.ndarray) -> CopyLimits:
    """Calibrate the limits on the real training images: nearer than distinct real images are to
    each other.

    For each image its most similar other one; the limits are the 99.9th percentile of these
    similarities and the 0.1th of these pixel distances, so one accidental pair in a thousand does
    not move them. Ours, not a paper's.
    """
    positions, similarity = nearest(features, features, exclude_self=True)
    distance = pixel_distance(pixels, (pixels[position] for position in positions))
    return CopyLimits(float(np.quantile(similarity, 0.999)), float(np.quantile(distance, 0.001)))

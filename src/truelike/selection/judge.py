"""The classifier that judges synthetic images, trained on the real training images alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from truelike.runtime.processes import one_thread
from truelike.selection.settings import Select
from truelike.training.images import Images
from truelike.training.loop import fit, predict
from truelike.training.networks import open_classifier
from truelike.training.settings import Optimization, Phase


@dataclass(frozen=True)
class Judge:
    """A classifier trained as that of the arm `real`, with steps and a seed of its own."""

    classifier: str
    optimization: Optimization
    seed: int

    @classmethod
    def of(cls, settings: Select, optimization: Optimization, classifier: str) -> "Judge":
        steps = {"steps": settings.classifier_steps}
        return cls(classifier, optimization.model_copy(update=steps), settings.seed)

    def class_probabilities(
        self, real: Images, num_classes: int, sets: Sequence[Images]
    ) -> list[np.ndarray]:
        """The probability of every class for each image of the sets, float32 of shape (N, K) each.

        The network sees the images `real` only; predictions are of the plain image.
        """
        size = real.resolution
        with one_thread():
            model = fit(
                lambda: open_classifier(
                    self.classifier, num_classes, self.optimization.pretrained, size
                ),
                lambda phase: [real],
                [Phase(on="real")],
                self.optimization,
                self.seed,
            )
            return [predict(model, images) for images in sets]

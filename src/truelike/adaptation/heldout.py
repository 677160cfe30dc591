"""Training images that learning leaves out, to choose by: ``choose: best`` of `invert` and
`adapt`.
"""

from typing import Literal

import torch
from torch import Tensor

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError

HELD_OUT, DRAWS = 0.1, 8  # the share of a class's images, and the noise draws of each


def split_classes(
    real: ImageSet, section: str, choose: Literal["last", "best"], seed: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The positions of the training images to learn from and to choose by, for each class that is
    present.

    With ``best`` a tenth of each class's training images, at least one, is left out of learning;
    with ``last`` none. Raises TruelikeError, which names the `section` of the parameters, if a
    class has a single image and one is to be left out.
    """
    labels = torch.tensor(real.labels)
    members = {label: (labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))}
    if choose == "last":
        return members, {label: positions[:0] for label, positions in members.items()}
    rng = torch.Generator().manual_seed(seed)
    kept, held = {}, {}
    for label, positions in members.items():
        if len(positions) < 2:
            raise TruelikeError(
                f"{section}.choose is 'best', but the class {real.class_names[label]!r} has 1 "
                f"training image: give at least 2 per class, or set {section}.choose to 'last'"
            )
        count = max(1, int(HELD_OUT * len(positions)))
        shuffled = positions[torch.randperm(len(positions), generator=rng)]
        held[label], kept[label] = shuffled[:count], shuffled[count:]
    return kept, held

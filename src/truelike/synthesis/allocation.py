"""Allocation: how many synthetic images of a replica each real image is the source of. Pure: no
network is opened here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.synthesis.settings import Policy, Synthesize

POINTS = 10  # of a judge's training at which it predicts its held-out images
EARLY = 5  # of these: by then an image is learned early
LAST = 0.999  # an offset below 1, and sums of floats


@dataclass(frozen=True)
class Judged:
    """What judges that have not trained on an image say of it.

    `right` bool (POINTS, N): whether the prediction is its label at each point of the training, the
    last at its end. `entropy` float (N,): of the last prediction, in nats.
    """

    right: np.ndarray
    entropy: np.ndarray

    @property
    def learned(self) -> np.ndarray:
        """The point, from 1 to POINTS, at which the prediction becomes right and stays so; POINTS +
        1 where it is wrong at the end: int (N,).
        """
        wrong = ~self.right
        after_last_wrong = len(wrong) - wrong[::-1].argmax(0) + 1
        return np.where(wrong.any(0), after_last_wrong, 1)


def quotas(
    policy: Policy, labels: np.ndarray, budget: int, replica: int, judged: Judged | None
) -> np.ndarray:
    """The number of images, a fraction, that each of N real images should give to a replica:
    float64 (N,) of sum `budget`.

    ``each``: as many of every image. ``balanced``: classes are filled up to one level, the smallest
    first, each replica from where those of a smaller number end; the images of a class alike
    (Feedback-guided synthesis, arXiv 2310.00158, fills up to the largest class). ``unlearned``: the
    images alone that are not learned by half of the judges' training (`Judged.learned`), alike
    (TADA, arXiv 2505.21574, without its schedule). ``uncertain``: in proportion to the entropy.
    Where no image is unlearned or uncertain, as ``each``.
    """
    if policy == "balanced":
        sizes = np.bincount(labels)
        made = fill(sizes, budget * (replica + 1)) - fill(sizes, budget * replica)
        return (made / np.maximum(sizes, 1))[labels]
    weights: np.ndarray = np.ones(len(labels))
    if policy != "each":
        assert judged is not None
        weights = judged.entropy if policy == "uncertain" else judged.learned > EARLY
    if not weights.sum():
        weights = np.ones(len(labels))
    return budget * weights / weights.sum()


def fill(sizes: np.ndarray, amount: float) -> np.ndarray:
    """How much each class gets when `amount` fills the smallest up to one level: float64 (K,) of
    that sum, none for a class without images.
    """
    present = np.sort(sizes[sizes > 0])
    levels = (amount + np.cumsum(present)) / np.arange(1, len(present) + 1)
    flooded = np.append(present[1:], np.inf) >= levels  # the next class is not reached
    level = levels[flooded.argmax()]
    return np.where(sizes > 0, np.clip(level - sizes, 0, None), 0.0)


def apportion(amounts: np.ndarray, keys: Sequence[str], seed: int, replica: int) -> np.ndarray:
    """Whole numbers for fractional `amounts` (N,), each rounded down or up, of their sum: int64.

    Systematic sampling: images lie in an order drawn by seed and replica, as long as their amounts,
    and those that a comb of unit steps meets are rounded up, so that over replicas each image gets
    its amount on average.
    """
    order = sorted(range(len(keys)), key=lambda row: _draw(seed, replica, keys[row]))
    ends = np.cumsum(amounts[order])
    ends[-1] = round(ends[-1])
    offset = LAST * (int.from_bytes(_draw(seed, replica, "")[:6], "big") / 2**48)
    counts = np.empty(len(keys), np.int64)
    counts[order] = np.diff(np.floor(ends + offset + 1e-9).astype(np.int64), prepend=0)
    return counts


def _draw(seed: int, replica: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}/allocation/{replica}/{key}".encode()).digest()


def write_allocations(
    images: ImageSet, settings: Synthesize, judged: Judged | None, out: Path
) -> None:
    """Write a table for every replica and for replica 0, ``out/REPLICA.parquet``: key, count and
    reason of each real image. A replica's table does not depend on which others there are.
    """
    replicas = sorted({0, *settings.replicas})
    for replica in replicas:
        table = allocation_table(images, settings, settings.allocation, judged, replica)
        write_table(out / allocation_file(replica), table)
    for file in set(out.iterdir()) - {out / allocation_file(replica) for replica in replicas}:
        file.unlink()


def allocation_table(
    images: ImageSet, settings: Synthesize, policy: Policy, judged: Judged | None, replica: int
) -> pd.DataFrame:
    """How many images of a replica each real image is the source of, and why: key, count,
    reason.
    """
    budget = settings.budget or len(images)
    amounts = quotas(policy, images.labels, budget, replica, judged)
    counts = apportion(amounts, images.keys, settings.seed, replica)
    reasons = _reasons(images, policy, judged)
    return pd.DataFrame({"key": images.keys, "count": counts, "reason": reasons})


def allocation_file(replica: int) -> str:
    """The name of the table of a replica."""
    return f"{replica}.parquet"


def _reasons(images: ImageSet, policy: Policy, judged: Judged | None) -> list[str]:
    """What decides the count of each image, in words; nothing where all are alike."""
    if policy == "balanced":
        sizes = np.bincount(images.labels)
        return [f"{sizes[label]} real images of its class" for label in images.labels]
    if policy == "each" or judged is None:
        return [""] * len(images)
    if policy == "uncertain":
        return [f"entropy {value:.3f}" for value in judged.entropy]
    return [
        f"right from {point} of {POINTS} on" if point <= POINTS else "wrong at the end"
        for point in judged.learned
    ]

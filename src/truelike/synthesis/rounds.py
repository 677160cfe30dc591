"""Rounds: sets of synthetic images that the network of an arm asks for, each beside those of the
rounds before it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.runtime.devices import device
from truelike.runtime.processes import one_thread
from truelike.synthesis.allocation import POINTS, Judged, allocation_file, allocation_table
from truelike.synthesis.critic import open_critic
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.settings import Round

BATCH = 256


def allocate_round(job: SynthesisJob, settings: Round, images: ImageSet) -> None:
    """Write the table of a round's replica where `job` looks for it: an even share of every real
    image, or in proportion to the entropy that the network of the arm before gives it.

    That network has trained on these images, so the entropy is of what it still finds unclear.
    """
    assert job.allocation
    judged = None
    if settings.allocation == "uncertain":
        with one_thread():
            entropy = _entropy(Path(job.settings.feedback.network), images)
        judged = Judged(np.ones((POINTS, len(images)), bool), entropy)
    table = allocation_table(images, job.settings, settings.allocation, judged, settings.replica)
    write_table(job.allocation / allocation_file(settings.replica), table)


@torch.no_grad()
def _entropy(network: Path, images: ImageSet) -> np.ndarray:
    """The entropy of a network's prediction for each image, float64 (N,), in nats."""
    critic = open_critic(network, "entropy", images.class_names, device())
    found = []
    for pixels in images.batches(BATCH):
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device()) / 255
        found.append(critic.score(inputs, torch.zeros(len(pixels))).double().cpu().numpy())
    return np.concatenate(found)


def with_digests(table: pd.DataFrame) -> pd.DataFrame:
    """A selection table with the sha256 of each image, so that it changes when an image does."""
    digests: dict[str, str] = {}
    for folder in table["folder"].unique():
        index = ImageSet(folder).index
        digests |= dict(zip(index["key"], index["sha256"], strict=True))
    return table.assign(sha256=table["key"].map(digests))

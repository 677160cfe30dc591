"""What every training stage shares: the corpus as tensors, the learning-rate schedule, the log."""

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foundation import BUILD
from foundation.corpus import DIRECTORY, INDEX


def load_corpus(split: str) -> tuple[Tensor, pd.DataFrame]:
    """Load the ``train`` or ``held-out`` part: uint8 images, (N, 3, 32, 32), and their attributes,
    N rows.
    """
    index = pd.read_parquet(INDEX)
    rows = np.flatnonzero(index["split"] == split)
    images = np.load(DIRECTORY / "images.npy", mmap_mode="r")[rows]
    return torch.from_numpy(images).permute(0, 3, 1, 2), index.iloc[rows].reset_index(
        drop=True
    ).astype(dict.fromkeys(index.select_dtypes("category"), str))


def to_unit(images: Tensor) -> Tensor:
    """Map uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def batches(
    count: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield ``steps`` batches of indices below ``count``, each epoch in a new random order."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(count, generator=generator)
        yield order[:batch_size]
        order = order[batch_size:]


def schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm up over the first 100 steps (or a tenth of a short run), then decay by a cosine to
    zero.
    """
    warmup = min(100, max(1, steps // 10))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1))),
    )


class Log:
    """A csv log in ``build/logs`` with a line for every 50 steps: step, seconds, and the mean of
    each value since.
    """

    def __init__(self, name: str, every: int = 50) -> None:
        self.path: Path = BUILD / "logs" / f"{name}.csv"
        self.every, self.pending = every, []  # type: int, list[dict[str, float]]

    def __enter__(self) -> "Log":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("w", newline="")
        self.writer, self.start = None, time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def add(self, step: int, **values: float) -> None:
        """Add the values of one step."""
        self.pending.append(values)
        if (step + 1) % self.every:
            return
        row = {"step": step + 1, "seconds": round(time.monotonic() - self.start, 1)}
        row |= {
            name: round(float(np.mean([values[name] for values in self.pending])), 5)
            for name in values
        }
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, row)
            self.writer.writeheader()
        self.writer.writerow(row)
        self.file.flush()
        self.pending = []

"""What every training stage shares: the corpus as tensors, resumable steps, schedule, log."""

import copy
import csv
import math
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from foundation import BUILD, ROOT
from foundation.paths import CORPUS, CORPUS_INDEX
from foundation.settings import Training
from truelike.runtime.scratch import fingerprint, scratch, write_once

CHECKPOINT_EVERY = 250  # steps, one to five minutes
LOG_EVERY = 50  # steps; checkpoints fall on whole rows


def load_corpus(split: str) -> tuple[Tensor, pd.DataFrame]:
    """Load the ``train`` or ``held-out`` part: uint8, (N, 3, 32, 32), and attributes, N rows."""
    index = pd.read_parquet(CORPUS_INDEX)
    rows = np.flatnonzero(index["split"] == split)
    images = np.load(CORPUS / "images.npy", mmap_mode="r")[rows]
    return torch.from_numpy(images).permute(0, 3, 1, 2), index.iloc[rows].reset_index(
        drop=True
    ).astype(dict.fromkeys(index.select_dtypes("category"), str))


def to_unit(images: Tensor) -> Tensor:
    """Map uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


class Stateful(Protocol):
    """What a step changes: a network, an optimizer, a schedule."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Draw(NamedTuple):
    """What one step may draw from.

    All of it depends on the seed and the step alone, so a resumed run repeats it.
    """

    step: int
    rows: Tensor  # of the corpus, (batch size,)
    rng: np.random.Generator
    generator: torch.Generator


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Order the corpus for an epoch: a permutation of ``count`` indices."""
    return torch.from_numpy(np.random.default_rng([seed, 0, epoch]).permutation(count))


def draw(settings: Training, count: int, step: int) -> Draw:
    """Draw a step's batch, from ``count`` images in a new order each epoch, and its generators."""
    epoch, place = divmod(step, max(1, count // settings.batch_size))
    rows = epoch_order(count, settings.seed, epoch)[place * settings.batch_size :][
        : settings.batch_size
    ]
    rng = np.random.default_rng([settings.seed, 1, step])
    return Draw(step, rows, rng, torch.Generator().manual_seed(int(rng.integers(2**63))))


def stage_inputs(name: str) -> list[Path]:
    """List a stage's deps in ``dvc.yaml``, so that DVC and resumption cannot disagree."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return [ROOT / path for path in stages[name]["deps"]]


def fit(
    name: str,
    settings: Training,
    count: int,
    parts: dict[str, Stateful],
    one_step: Callable[[Draw], dict[str, float]],
    inputs: Iterable[Path],
) -> None:
    """Run a training on ``count`` images, from where a killed run of the same inputs saved last.

    Checkpoints of ``parts`` and of the log lie in the scratch folder ``.work/foundation/<name>``,
    under a key of the settings and of ``inputs``. A run that was killed ends with the same weights
    as one that was not. What ``one_step`` returns is logged to ``build/logs/<name>.csv``.
    """
    key = fingerprint([settings.model_dump(), count], *inputs)
    with scratch(f"foundation/{name}", key) as folder:
        checkpoint, log, start = folder / "checkpoint.pt", Log(), 0
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            start, log.rows, log.seconds = saved["step"], saved["rows"], saved["seconds"]
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
        for step in range(start, settings.steps):
            log.add(step, one_step(draw(settings, count, step)))
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == settings.steps:
                state = {
                    "step": step + 1,
                    "rows": log.rows,
                    "seconds": log.elapsed(),
                    "parts": {part: value.state_dict() for part, value in parts.items()},
                }
                write_once(checkpoint, lambda path, state=state: torch.save(state, path))
        log.write(BUILD / "logs" / f"{name}.csv")


def schedule(
    optimizer: torch.optim.Optimizer, steps: int, hold: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm up for 100 steps (a tenth of a short run), hold, then decay by a cosine to zero.

    ``hold`` is the share of the steps before the decay.
    """
    warmup = min(100, max(1, steps // 10))

    def rate(step: int) -> float:
        decayed = max(0.0, step / steps - hold) / (1 - hold)
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(decayed, 1.0)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def descend(
    loss: Tensor, optimizer: torch.optim.Optimizer, decay: torch.optim.lr_scheduler.LambdaLR
) -> None:
    """Take one step against the gradient of a loss, clipped to norm 1."""
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    decay.step()


class Average(nn.Module):
    """The exponential moving average of a network's weights, which is what a stage saves."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards a network's weights; the first steps count for little."""
        keep = min(self.decay, (step + 1) / (step + 10))
        for slow, fast in zip(self.network.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


class Log:
    """Rows of a csv log: step, seconds, and the mean of each value over the last 50 steps.

    A value that only some steps have leaves the other rows empty.
    """

    def __init__(self) -> None:
        self.seconds, self.start = 0.0, time.monotonic()
        self.rows: list[dict[str, float]] = []
        self.pending: dict[str, list[float]] = {}

    def elapsed(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self.seconds + time.monotonic() - self.start

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add the values of one step."""
        for name, value in values.items():
            self.pending.setdefault(name, []).append(value)
        if (step + 1) % LOG_EVERY:
            return
        row = {"step": step + 1, "seconds": round(self.elapsed(), 1)}
        row |= {name: round(float(np.mean(values)), 5) for name, values in self.pending.items()}
        print(*(f"{name} {value}" for name, value in row.items()), flush=True)
        self.rows.append(row)
        self.pending = {}

    def write(self, path: Path) -> None:
        """Write the rows as csv."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            names = dict.fromkeys(name for row in self.rows for name in row)
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(self.rows)

"""The optimization loop of style inversion and adaptation: seeded by step, so that a resumed run is
the same run.
"""

import csv
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from truelike.runtime.devices import device
from truelike.runtime.processes import sum_gradients
from truelike.runtime.progress import track
from truelike.runtime.scratch import finished, is_first, write_finished, write_once

CHECKPOINT_FILE, LOG_FILE = "checkpoint.pt", "log.csv"

Losses = Callable[[torch.Generator, int], dict[str, Tensor]]
"""A step's losses by name, of which ``loss`` is minimised, from its random generator and number."""


@dataclass(frozen=True)
class LoopSettings:
    """How to optimize; `name` is what the progress bar says, `clip` the largest norm of a gradient.

    Weights and gradients are float32; another `dtype` is for the forward pass (autocast), float16
    as bfloat16, whose range needs no loss scaling. With `ema_decay` the parameters end as their
    exponential moving average, whose decay rises with the steps as (1 + step) / (10 + step) up to
    `ema_decay`.
    """

    name: str
    dtype: str
    steps: int
    lr: float
    weight_decay: float
    seed: int
    checkpoint_every: int
    clip: float | None = None
    ema_decay: float | None = None

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(device().type, torch.bfloat16, enabled=self.dtype != "float32")


@dataclass
class LoopState:
    """What a checkpoint holds: parameters, optimizer, moving average, log, and the lowest held-out
    loss so far of each parameter with its value then.
    """

    parameters: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    average: EMAModel | None
    best: dict[str, tuple[float, Tensor]] = field(default_factory=dict)
    log: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, parameters: dict[str, Tensor], settings: LoopSettings) -> "LoopState":
        values, decay = parameters.values(), settings.ema_decay
        optimizer = torch.optim.AdamW(values, lr=settings.lr, weight_decay=settings.weight_decay)
        return cls(parameters, optimizer, None if decay is None else EMAModel(values, decay=decay))

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True, map_location="cpu")
        for key, value in self.parameters.items():
            value.data.copy_(state["parameters"][key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.log = state["best"], state["log"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(device())

    def content(self) -> dict[str, Any]:
        return {
            "parameters": {key: value.detach() for key, value in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best,
            "log": self.log,
        }

    def note(self, heldout: dict[str, float]) -> None:
        """Log the mean held-out loss, and keep the parameters whose own loss is the lowest so
        far.
        """
        for key, loss in heldout.items():
            if key not in self.best or loss < self.best[key][0]:
                self.best[key] = (loss, self.parameters[key].detach().clone())
        self.log[-1]["heldout"] = sum(heldout.values()) / len(heldout)

    def finish(self) -> None:
        """Set the parameters to their average and then to their best values, where there are
        any.
        """
        if self.average is not None:
            self.average.copy_to(self.parameters.values())
        for key, (_, value) in self.best.items():
            self.parameters[key].data.copy_(value)


def step_rng(seed: int, step: int) -> torch.Generator:
    """The random generator of one step, on the CPU: everything random in a step comes from it,
    whether or not the run was resumed.
    """
    return torch.Generator().manual_seed((seed << 32) + step)


def optimize(
    parameters: dict[str, Tensor],
    losses_of: Losses,
    folder: Path,
    settings: LoopSettings,
    heldout: Callable[[], dict[str, float]] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Minimise ``losses_of(rng, step)["loss"]`` over `parameters` in place with AdamW, and write
    ``log.csv``.

    A parameter without a gradient in a step is left as it is, momentum included. With `heldout`, a
    loss for each name in `parameters`, which is called at every checkpoint and at the end, each
    parameter ends as it was where its held-out loss was lowest; the log's column `heldout` is their
    mean. With a moving average both are the average's. `after_step` is called with the number of
    steps that are taken.

    Every `checkpoint_every` steps the state goes to ``folder/checkpoint.pt``; a run that finds one
    continues from it and ends with the same bytes as an uninterrupted run.
    """
    state, checkpoint = LoopState.start(parameters, settings), folder / CHECKPOINT_FILE
    if finished(checkpoint):
        state.load(checkpoint)
        print(
            f"{checkpoint}: goes on after step {len(state.log)} of {settings.steps}",
            file=sys.stderr,
        )
    done, steps = len(state.log), settings.steps
    for step in track(range(done, steps), settings.name, steps, "step", done, shown=is_first()):
        _take_step(state, losses_of, settings, step)
        at_checkpoint = (step + 1) % settings.checkpoint_every == 0
        if heldout is not None and (at_checkpoint or step + 1 == settings.steps):
            _choose(state, heldout, settings)
        if after_step is not None:
            after_step(step + 1)
        if at_checkpoint and is_first():
            write_finished(checkpoint, partial(torch.save, state.content()))
    state.finish()
    if is_first():
        write_once(folder / LOG_FILE, lambda path: _write_log(path, state.log))


def _take_step(state: LoopState, losses_of: Losses, settings: LoopSettings, step: int) -> None:
    with settings.autocast():
        losses = losses_of(step_rng(settings.seed, step), step)
    state.optimizer.zero_grad()
    losses["loss"].backward()
    sum_gradients(state.parameters.values())
    if settings.clip is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters.values(), settings.clip)
    state.optimizer.step()
    if state.average is not None:
        state.average.step(state.parameters.values())
    values = {key: float(value.detach()) for key, value in losses.items()}
    state.log.append({"step": step} | values)


def _choose(
    state: LoopState, heldout: Callable[[], dict[str, float]], settings: LoopSettings
) -> None:
    values, average = state.parameters.values(), state.average
    if average is not None:
        average.store(values)
        average.copy_to(values)
    with torch.no_grad(), settings.autocast():
        state.note(heldout())
    if average is not None:
        average.restore(values)


def _write_log(path: Path, log: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(key for row in log for key in row))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in log)

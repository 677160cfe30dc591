"""The optimization loop of style inversion and adaptation: seeded by step, so that a resumed run is
the same run.
"""

import csv
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from truelike.runtime.devices import device
from truelike.runtime.processes import sum_gradients
from truelike.runtime.scratch import finished, is_first, write_finished, write_once

CHECKPOINT_FILE, LOG_FILE = "checkpoint.pt", "log.csv"


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step: everything random in a step comes from it, whether or not the
    run was resumed.
    """
    return torch.Generator().manual_seed((seed << 32) + step)


def optimize(
    parameters: dict[str, Tensor],
    losses_of: Callable[[torch.Generator, int], dict[str, Tensor]],
    folder: Path,
    *,
    name: str,
    dtype: str,
    steps: int,
    lr: float,
    weight_decay: float,
    clip: float | None,
    seed: int,
    checkpoint_every: int,
    ema_decay: float | None = None,
    heldout: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Minimise ``losses_of(generator, step)["loss"]`` over `parameters` in place with AdamW, and
    write ``log.csv``.

    A parameter without a gradient in a step is left as it is, momentum included. With `ema_decay`
    the parameters end as their exponential moving average, whose decay rises with the steps as (1 +
    step) / (10 + step) up to `ema_decay`. With `heldout`, a loss for each name in `parameters`,
    which is called at every checkpoint and at the end, each parameter ends as it was where its
    held-out loss was lowest; the log's column `heldout` is their mean.

    Weights and gradients are float32; other types are for the forward pass (autocast), float16 as
    bfloat16, whose range needs no loss scaling.

    Every `checkpoint_every` steps the state goes to ``folder/checkpoint.pt``; a run that finds one
    continues from it and ends with the same bytes as an uninterrupted run.
    """
    autocast = partial(torch.autocast, device().type, torch.bfloat16, enabled=dtype != "float32")
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=weight_decay)
    average = None if ema_decay is None else EMAModel(parameters.values(), decay=ema_decay)
    best: dict[str, tuple[float, Tensor]] = {}
    log: list[dict[str, float]] = []
    checkpoint = folder / CHECKPOINT_FILE
    if finished(checkpoint):
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        for key, value in parameters.items():
            value.data.copy_(state["parameters"][key])
        optimizer.load_state_dict(state["optimizer"])
        best, log = state["best"], state["log"]
        print(f"{checkpoint}: goes on after step {len(log)} of {steps}", file=sys.stderr)
        if average is not None:
            average.load_state_dict(state["average"])
            average.to(device())
    for step in tqdm(
        range(len(log), steps),
        desc=name,
        initial=len(log),
        total=steps,
        unit="step",
        disable=not is_first(),
    ):
        with autocast():
            losses = losses_of(step_generator(seed, step), step)
        optimizer.zero_grad()
        losses["loss"].backward()
        sum_gradients(parameters.values())
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        optimizer.step()
        if average is not None:
            average.step(parameters.values())
        log.append({"step": step} | {key: float(value.detach()) for key, value in losses.items()})
        at_checkpoint = (step + 1) % checkpoint_every == 0
        if heldout is not None and (at_checkpoint or step + 1 == steps):
            with torch.no_grad(), autocast():
                found = heldout()
            for key, loss in found.items():
                if key not in best or loss < best[key][0]:
                    best[key] = (loss, parameters[key].detach().clone())
            log[-1]["heldout"] = sum(found.values()) / len(found)
        if at_checkpoint and is_first():
            state = {
                "parameters": {key: value.detach() for key, value in parameters.items()},
                "optimizer": optimizer.state_dict(),
                "average": None if average is None else average.state_dict(),
                "best": best,
                "log": log,
            }
            write_finished(checkpoint, partial(torch.save, state))
    if average is not None:
        average.copy_to(parameters.values())
    for key, (_, value) in best.items():
        parameters[key].data.copy_(value)
    if is_first():
        write_once(folder / LOG_FILE, lambda path: _write_log(path, log))


def _write_log(path: Path, log: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(key for row in log for key in row))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in log)

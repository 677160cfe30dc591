"""The optimization loop of style inversion and adaptation: seeded by step, so that a resumed run is the same run."""

import csv
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from torch import Tensor
from tqdm import tqdm

import truelike
from truelike.models.source import device
from truelike.scratch import fingerprint, write_once

CHECKPOINT_FILE, LOG_FILE = "checkpoint.pt", "log.csv"


def loop_fingerprint(settings: Any, *paths: str | Path) -> str:
    """Changes with everything that decides what a run learns: settings, files, the library's code, where it runs."""
    library = Path(truelike.__file__).parent
    code = [library / name for name in ("data", "diffusion", "models", "prompts.py")]
    versions = [torch.__version__, diffusers.__version__, peft.__version__, device().type, platform.machine()]
    return fingerprint([settings, versions], *paths, *code)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step: everything random in a step comes from it, whether or not the run was resumed."""
    return torch.Generator().manual_seed((seed << 32) + step)


def optimize(
    parameters: dict[str, Tensor],
    losses_of: Callable[[torch.Generator], dict[str, Tensor]],
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
) -> None:
    """Minimise ``losses_of(generator)["loss"]`` over `parameters` in place with AdamW, and write ``log.csv``.

    Weights and gradients are float32; other types are for the forward pass (autocast), float16 as bfloat16, whose range
    needs no loss scaling.

    Every `checkpoint_every` steps the state goes to ``folder/checkpoint.pt``; a run that finds one continues from
    it and ends with the same bytes as an uninterrupted run.
    """
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=weight_decay)
    log: list[dict[str, float]] = []
    checkpoint = folder / CHECKPOINT_FILE
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        for key, value in parameters.items():
            value.data.copy_(state["parameters"][key])
        optimizer.load_state_dict(state["optimizer"])
        log = state["log"]
    for step in tqdm(range(len(log), steps), desc=name, initial=len(log), total=steps, unit="step"):
        with torch.autocast(device().type, torch.bfloat16, enabled=dtype != "float32"):
            losses = losses_of(step_generator(seed, step))
        optimizer.zero_grad()
        losses["loss"].backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        optimizer.step()
        log.append({"step": step} | {key: float(value.detach()) for key, value in losses.items()})
        if (step + 1) % checkpoint_every == 0:
            values = {key: value.detach() for key, value in parameters.items()}
            state = {"parameters": values, "optimizer": optimizer.state_dict(), "log": log}
            write_once(checkpoint, partial(torch.save, state))
    write_once(folder / LOG_FILE, lambda path: _write_log(path, log))


def _write_log(path: Path, log: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in log)

"""The training loop: phases over labelled images, a fixed number of optimizer steps, the same
result for a seed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from truelike.runtime.devices import device
from truelike.runtime.scratch import finished, write_finished
from truelike.training.augmentation import normalise, random_resized_crop
from truelike.training.images import TrainingSet
from truelike.training.losses import batch_loss
from truelike.training.networks import input_statistics, reset_head
from truelike.training.phases import batch_sizes, learning_rate, next_positions, phase_steps
from truelike.training.settings import Optimization, Phase

LogRow = tuple[int, int, float, float]  # step, phase, loss, learning rate


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums have the same order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Checkpoint:
    """The file that a network's training is kept in, and after how many steps each."""

    file: Path
    every: int


@dataclass
class PhaseState:
    """All that the steps of a phase change; `state_dict` and `load_state_dict` are torch's."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator  # of order and mixing
    augmentation: torch.Generator
    waiting: list[np.ndarray]  # of each set, see `next_positions`

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "augmentation": self.augmentation.get_state(),
            "torch": torch.get_rng_state(),  # of dropout and stochastic depth
            # whichever GPU it goes on with
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "waiting": [torch.from_numpy(positions) for positions in self.waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.augmentation.set_state(state["augmentation"])
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        self.waiting = [positions.numpy() for positions in state["waiting"]]


def fit(
    open_model: Callable[[], nn.Module],
    sources: Callable[[Phase], Sequence[TrainingSet]],
    phases: Sequence[Phase],
    optimization: Optimization,
    seed: int,
    on_step: Callable[[LogRow], object] = lambda row: None,
    proxy: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
) -> nn.Module:
    """Train one network through its phases and return it in evaluation mode.

    `open_model` draws the initial weights from torch's generator, which is seeded first: the same
    seed starts from the same weights whatever the phases are. `sources` gives a phase its images:
    one set, or the real and the partner set of a joint phase. Each phase has a fresh optimizer and
    its share of the steps. `on_step` receives (step, phase, loss, learning rate) after every step.
    `proxy` is the network of phases with proxy guidance; it is frozen.

    A run that finds the file of `checkpoint` gives its rows to `on_step`, continues from it, and
    ends with the same bytes as an uninterrupted run.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    model = open_model().to(device()).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if proxy is not None:
        proxy = proxy.to(device()).eval().requires_grad_(False)
    state = _read(checkpoint, optimization.steps)
    log: list[LogRow] = state["log"] if state else []
    for row in log:
        on_step(row)
    reached = log[-1][1] if log else 0
    counts = phase_steps(optimization.steps, [phase.share for phase in phases])
    for number, (phase, steps) in enumerate(zip(phases, counts, strict=True)):
        if number < reached:
            continue
        rng = np.random.default_rng([seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        if phase.reset_head:
            reset_head(model)
        progress = _begin(model, len(sets := sources(phase)), optimization, rng)
        if state and number == reached:
            progress.load_state_dict(state)
        begun = len(log) - sum(counts[:number])
        for loss, lr in _run_phase(progress, proxy, sets, phase, optimization, begun, steps):
            log.append((len(log), number, loss, lr))
            on_step(log[-1])
            if checkpoint is not None and len(log) % checkpoint.every == 0:
                write_finished(
                    checkpoint.file, partial(torch.save, progress.state_dict() | {"log": log})
                )
    return model.eval()


def _read(checkpoint: Checkpoint | None, steps: int) -> dict[str, Any] | None:
    if checkpoint is None or not finished(checkpoint.file):
        return None
    state = torch.load(checkpoint.file, weights_only=True, map_location="cpu")
    print(f"{checkpoint.file}: goes on after step {len(state['log'])} of {steps}", file=sys.stderr)
    return state


def _begin(
    model: nn.Module, sets: int, optimization: Optimization, rng: np.random.Generator
) -> PhaseState:
    augmentation = torch.Generator().manual_seed(int(rng.integers(2**62)))
    optimizer = create_optimizer_v2(
        model,
        opt=optimization.optimizer,
        lr=optimization.lr,
        weight_decay=optimization.weight_decay,
        momentum=0.9,
        fused=True,
    )
    return PhaseState(model, optimizer, rng, augmentation, [np.zeros(0, np.int64)] * sets)


def _run_phase(
    state: PhaseState,
    proxy: nn.Module | None,
    sets: Sequence[TrainingSet],
    phase: Phase,
    optimization: Optimization,
    begun: int,
    steps: int,
) -> Iterator[tuple[float, float]]:
    """Take the phase's steps that are left, and yield the loss and learning rate of each."""
    labels = [torch.tensor(images.labels) for images in sets]
    weights = phase.joint or (1.0,)
    for step in range(begun, steps):
        lr = learning_rate(
            step,
            steps,
            optimization.lr * phase.lr_scale,
            optimization.warmup_fraction,
            optimization.schedule,
        )
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        positions = _next_batches(state, sets, batch_sizes(phase, optimization.batch_size))
        losses = []
        for weight, images, own_labels, chosen in zip(
            weights, sets, labels, positions, strict=True
        ):
            inputs = _inputs(state, images.take(chosen), optimization)
            targets = own_labels[torch.from_numpy(chosen)].to(inputs.device)
            smoothing = optimization.label_smoothing
            loss = batch_loss(state.model, proxy, inputs, targets, phase, smoothing, state.rng)
            losses.append(weight * loss)
        total = torch.stack(losses).sum()
        state.optimizer.zero_grad()
        total.backward()
        state.optimizer.step()
        yield total.item(), lr


def _next_batches(
    state: PhaseState, sets: Sequence[TrainingSet], sizes: Sequence[int]
) -> list[np.ndarray]:
    drawn = [
        next_positions(waiting, len(images), size, state.rng)
        for waiting, images, size in zip(state.waiting, sets, sizes, strict=True)
    ]
    state.waiting = [waiting for _, waiting in drawn]
    return [positions for positions, _ in drawn]


def _inputs(state: PhaseState, pixels: np.ndarray, optimization: Optimization) -> Tensor:
    """Augmented inputs of a network, float32 (B, 3, H, W), of pixels uint8 (B, H, W, 3)."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device())
    inputs = normalise(batch, *input_statistics(state.model))
    if optimization.crop_scale < 1 or optimization.flip:
        inputs = random_resized_crop(
            inputs, optimization.crop_scale, optimization.flip, state.augmentation
        )
    return inputs


@torch.inference_mode()
def predict(model: nn.Module, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Class probabilities of uint8 images (N, H, W, 3), without augmentation: float32 of shape (N,
    K).
    """
    mean, std = input_statistics(model)
    where = next(model.parameters()).device
    probabilities = []
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(pixels[start : start + batch_size]).permute(0, 3, 1, 2).to(where)
        inputs = normalise(batch, mean, std).contiguous(memory_format=torch.channels_last)
        probabilities.append(model(inputs).float().softmax(1).cpu().numpy())
    return np.concatenate(probabilities)

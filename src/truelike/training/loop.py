"""The training loop: phases over labelled images, a fixed number of optimizer steps, the same
result for a seed.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from truelike.runtime.scratch import finished, write_finished
from truelike.training.augmentation import normalise, random_resized_crop
from truelike.training.losses import batch_loss
from truelike.training.networks import input_statistics
from truelike.training.settings import Phase, Train


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; the fields are those of the section `train` of params.yaml."""

    steps: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    lr: float
    schedule: Literal["cosine", "steps"]
    weight_decay: float
    label_smoothing: float
    warmup_fraction: float
    crop_scale: float
    flip: bool

    @classmethod
    def of(cls, train: Train) -> "Recipe":
        return cls(**{name: getattr(train, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images: uint8 of shape (N, H, W, 3); labels, int64 of shape (N,), or soft ones,
    float32 (N, K).
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        return self.pixels[positions]


@dataclass(frozen=True)
class Union:
    """Two sets of images as one, those of the second after those of the first; no pixels are
    copied.
    """

    first: LabelledImages
    second: LabelledImages

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([self.first.labels, self.second.labels])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at these positions, uint8 (B, H, W, 3)."""
        behind = positions - len(self.first)
        chosen = np.empty((len(positions), *self.first.pixels.shape[1:]), np.uint8)
        chosen[behind < 0] = self.first.take(positions[behind < 0])
        chosen[behind >= 0] = self.second.take(behind[behind >= 0])
        return chosen


TrainingSet = LabelledImages | Union


LogRow = tuple[int, int, float, float]  # step, phase, loss, learning rate


def phase_steps(steps: int, shares: Sequence[float]) -> list[int]:
    """Divide the optimizer steps by the phases' shares so that they add up exactly."""
    ends = [round(steps * sum(shares[: count + 1])) for count in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def learning_rate(
    step: int, steps: int, peak: float, warmup_fraction: float, schedule: Literal["cosine", "steps"]
) -> float:
    """Linear warm-up to `peak`, then half a cosine to zero, or a fifth at 25, 50 and 75 % of the
    steps (RF, CiP).

    `step` counts from 0.
    """
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "steps":
        return peak * 0.2 ** (4 * step // steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def next_positions(
    waiting: np.ndarray, size: int, batch_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the next batch, and those of the begun pass that wait for the batches after it.

    Every pass over the `size` images has a new order; a batch may end one pass and begin another,
    so it is always full.
    """
    while len(waiting) < batch_size:
        waiting = np.concatenate([waiting, rng.permutation(size)])
    return waiting[:batch_size], waiting[batch_size:]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums have the same order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Progress:
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
            "cuda": torch.cuda.get_rng_state()
            if torch.cuda.is_available()
            else None,  # whichever GPU it goes on with
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
    recipe: Recipe,
    seed: int,
    on_step: Callable[[LogRow], object] = lambda row: None,
    proxy: nn.Module | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1,
) -> nn.Module:
    """Train one network through its phases and return it in evaluation mode.

    `open_model` draws the initial weights from torch's generator, which is seeded first: the same
    seed starts from the same weights whatever the phases are. `sources` gives a phase its images:
    one set, or the real and the partner set of a joint phase. Each phase has a fresh optimizer and
    its share of the steps. `on_step` receives (step, phase, loss, learning rate) after every step.
    `proxy` is the network of phases with proxy guidance; it is frozen.

    Every `checkpoint_every` steps the state goes to the file `checkpoint`, where one is given; a
    run that finds it gives its rows to `on_step`, continues from it, and ends with the same bytes
    as an uninterrupted run.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    model = open_model().to(device()).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if proxy is not None:
        proxy = proxy.to(device()).eval().requires_grad_(False)
    log: list[LogRow] = []
    state: dict[str, Any] | None = None
    if checkpoint is not None and finished(checkpoint):
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        log = state["log"]
        print(f"{checkpoint}: goes on after step {len(log)} of {recipe.steps}", file=sys.stderr)
    for row in log:
        on_step(row)
    reached = log[-1][1] if log else 0
    counts = phase_steps(recipe.steps, [phase.share for phase in phases])
    for number, (phase, steps) in enumerate(zip(phases, counts, strict=True)):
        if number < reached:
            continue
        rng = np.random.default_rng([seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        if phase.reset_head:
            reset_head(model)
        progress = _begin(model, len(sets := sources(phase)), recipe, rng)
        if state and number == reached:
            progress.load_state_dict(state)
        begun = len(log) - sum(counts[:number])
        for loss, lr in _run_phase(progress, proxy, sets, phase, recipe, begun, steps):
            log.append((len(log), number, loss, lr))
            on_step(log[-1])
            if checkpoint is not None and len(log) % checkpoint_every == 0:
                write_finished(
                    checkpoint, partial(torch.save, progress.state_dict() | {"log": log})
                )
    return model.eval()


def reset_head(model: nn.Module) -> None:
    """Give the network's last layer fresh random weights (BT: `bridged` with re-initialisation)."""
    for module in model.get_classifier().modules():  # type: ignore[operator]
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def _begin(model: nn.Module, sets: int, recipe: Recipe, rng: np.random.Generator) -> Progress:
    augmentation = torch.Generator().manual_seed(int(rng.integers(2**62)))
    optimizer = create_optimizer_v2(
        model,
        opt=recipe.optimizer,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=0.9,
        fused=True,
    )
    return Progress(model, optimizer, rng, augmentation, [np.zeros(0, np.int64)] * sets)


def _run_phase(
    progress: Progress,
    proxy: nn.Module | None,
    sets: Sequence[TrainingSet],
    phase: Phase,
    recipe: Recipe,
    begun: int,
    steps: int,
) -> Iterator[tuple[float, float]]:
    where, model, optimizer = device(), progress.model, progress.optimizer
    labels = [torch.tensor(images.labels) for images in sets]
    # A joint step sees as many images as any other: half a batch of each set.
    half = recipe.batch_size // 2
    sizes = [half, recipe.batch_size - half] if phase.joint else [recipe.batch_size]
    weights = phase.joint or (1.0,)
    mean, std = input_statistics(model)
    for step in range(begun, steps):
        lr = learning_rate(
            step, steps, recipe.lr * phase.lr_scale, recipe.warmup_fraction, recipe.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        drawn = [
            next_positions(waiting, len(images), size, progress.rng)
            for waiting, images, size in zip(progress.waiting, sets, sizes, strict=True)
        ]
        progress.waiting = [waiting for _, waiting in drawn]
        losses = []
        for weight, images, own_labels, (positions, _) in zip(
            weights, sets, labels, drawn, strict=True
        ):
            pixels = torch.from_numpy(images.take(positions)).permute(0, 3, 1, 2)
            inputs = normalise(pixels.to(where), mean, std)
            if recipe.crop_scale < 1 or recipe.flip:
                inputs = random_resized_crop(
                    inputs, recipe.crop_scale, recipe.flip, progress.augmentation
                )
            targets = own_labels[torch.from_numpy(positions)].to(where)
            losses.append(
                weight
                * batch_loss(
                    model, proxy, inputs, targets, phase, recipe.label_smoothing, progress.rng
                )
            )
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item(), lr


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

"""The training loop: phases over labelled images, a fixed number of optimizer steps, the same result for a seed."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from truelike.config import Phase, Train
from truelike.models.classifier import input_statistics
from truelike.training.augment import normalise, random_resized_crop
from truelike.training.losses import batch_loss


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
    """Decoded images: uint8 of shape (N, H, W, 3); labels, int64 of shape (N,), or soft ones, float32 (N, K)."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "LabelledImages") -> "LabelledImages":
        return LabelledImages(np.concatenate([self.pixels, other.pixels]), np.concatenate([self.labels, other.labels]))


LogRow = tuple[int, int, float, float]  # step, phase, loss, learning rate


def phase_steps(steps: int, shares: Sequence[float]) -> list[int]:
    """Divide the optimizer steps by the phases' shares so that they add up exactly."""
    ends = [round(steps * sum(shares[: count + 1])) for count in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def learning_rate(
    step: int, steps: int, peak: float, warmup_fraction: float, schedule: Literal["cosine", "steps"]
) -> float:
    """Linear warm-up to `peak`, then half a cosine to zero, or a fifth at 25, 50 and 75 % of the steps (RF, CiP).

    `step` counts from 0.
    """
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "steps":
        return peak * 0.2 ** (4 * step // steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def batch_positions(size: int, batch_size: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Positions of each step's batch, from one shuffled pass over `size` images after the other; batches are full."""
    stream = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        while len(stream) < batch_size:
            stream = np.concatenate([stream, rng.permutation(size)])
        yield stream[:batch_size]
        stream = stream[batch_size:]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums have the same order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(
    open_model: Callable[[], nn.Module],
    sources: Callable[[Phase], Sequence[LabelledImages]],
    phases: Sequence[Phase],
    recipe: Recipe,
    seed: int,
    on_step: Callable[[LogRow], object] = lambda row: None,
    proxy: nn.Module | None = None,
) -> nn.Module:
    """Train one network through its phases and return it in evaluation mode.

    `open_model` draws the initial weights from torch's generator, which is seeded first: the same seed starts from the
    same weights whatever the phases are. `sources` gives a phase its images: one set, or the real and the partner set
    of a joint phase. Each phase has a fresh optimizer and its share of the steps. `on_step` receives (step, phase,
    loss, learning rate) after every step. `proxy` is the network of phases with proxy guidance; it is frozen.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    model = open_model().to(device()).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if proxy is not None:
        proxy = proxy.to(device()).eval().requires_grad_(False)
    step = 0
    for number, (phase, steps) in enumerate(
        zip(phases, phase_steps(recipe.steps, [phase.share for phase in phases]), strict=True)
    ):
        rng = np.random.default_rng([seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        if phase.reset_head:
            reset_head(model)
        for loss, lr in _run_phase(model, proxy, sources(phase), phase, recipe, steps, rng):
            on_step((step, number, loss, lr))
            step += 1
    return model.eval()


def reset_head(model: nn.Module) -> None:
    """Give the network's last layer fresh random weights (BT: `bridged` with re-initialisation)."""
    for module in model.get_classifier().modules():  # type: ignore[operator]
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def _run_phase(
    model: nn.Module,
    proxy: nn.Module | None,
    sets: Sequence[LabelledImages],
    phase: Phase,
    recipe: Recipe,
    steps: int,
    rng: np.random.Generator,
) -> Iterator[tuple[float, float]]:
    where = device()
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    tensors = [(torch.from_numpy(images.pixels).permute(0, 3, 1, 2), torch.tensor(images.labels)) for images in sets]
    # A joint step sees as many images as any other: half a batch of each set.
    half = recipe.batch_size // 2
    sizes = [half, recipe.batch_size - half] if phase.joint else [recipe.batch_size]
    weights = phase.joint or (1.0,)
    streams = [batch_positions(len(images), size, steps, rng) for images, size in zip(sets, sizes, strict=True)]
    mean, std = input_statistics(model)
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=0.9, fused=True
    )
    for step, batches in enumerate(zip(*streams, strict=True)):
        lr = learning_rate(step, steps, recipe.lr * phase.lr_scale, recipe.warmup_fraction, recipe.schedule)
        for group in optimizer.param_groups:
            group["lr"] = lr
        losses = []
        for weight, (pixels, labels), positions in zip(weights, tensors, batches, strict=True):
            chosen = torch.from_numpy(positions)
            inputs = normalise(pixels[chosen].to(where), mean, std)
            if recipe.crop_scale < 1 or recipe.flip:
                inputs = random_resized_crop(inputs, recipe.crop_scale, recipe.flip, generator)
            targets = labels[chosen].to(where)
            losses.append(weight * batch_loss(model, proxy, inputs, targets, phase, recipe.label_smoothing, rng))
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item(), lr


@torch.inference_mode()
def predict(model: nn.Module, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Class probabilities of uint8 images (N, H, W, 3), without augmentation: float32 of shape (N, K)."""
    mean, std = input_statistics(model)
    where = next(model.parameters()).device
    probabilities = []
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(pixels[start : start + batch_size]).permute(0, 3, 1, 2).to(where)
        inputs = normalise(batch, mean, std).contiguous(memory_format=torch.channels_last)
        probabilities.append(model(inputs).float().softmax(1).cpu().numpy())
    return np.concatenate(probabilities)

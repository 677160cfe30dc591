"""The training loop: phases over labelled images, a fixed number of optimizer steps, the same
result for a seed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import own_rows
from truelike.runtime.scratch import finished, is_first, write_finished
from truelike.training.augmentation import Share, augment, normalise
from truelike.training.images import Images, StoredImages, TrainingSet, fetched
from truelike.training.losses import batch_loss
from truelike.training.networks import input_statistics, reset_head
from truelike.training.phases import (
    batch_sizes,
    learning_rate,
    next_positions,
    one_pass,
    phase_steps,
    streamed_positions,
)
from truelike.training.settings import Optimization, Phase

LogRow = tuple[int, int, float, float]  # last step, phase, mean loss, learning rate


@dataclass(frozen=True)
class Checkpoint:
    """The file that a network's training is kept in, and after how many steps each."""

    file: Path
    every: int


@dataclass
class PhaseState:
    """All that the steps of a phase change; `state_dict` and `load_state_dict` are torch's."""

    model: nn.Module
    network: nn.Module  # the model, or what divides its batches among processes
    average: ModelEmaV3 | None  # of the model's weights
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    seed: Sequence[int]
    rng: np.random.Generator  # of order and mixing
    augmentation: torch.Generator
    waiting: list[np.ndarray]  # of each set, see `next_positions`
    step: int  # of the phase
    losses: list[Tensor]  # since the last row of the log: of all processes,
    own_losses: list[Tensor]  # then those of this one alone

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average and self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": self.rng.bit_generator.state,
            "augmentation": self.augmentation.get_state(),
            "torch": torch.get_rng_state(),  # of dropout and stochastic depth
            # whichever GPU it goes on with
            "device": gpu.get_rng_state(device()) if (gpu := _gpu()) else None,
            "waiting": [torch.from_numpy(positions) for positions in self.waiting],
            "step": self.step,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.rng.bit_generator.state = state["rng"]
        self.augmentation.set_state(state["augmentation"])
        torch.set_rng_state(state["torch"])
        if gpu := _gpu():
            gpu.set_rng_state(state["device"], device())
        self.waiting = [positions.numpy() for positions in state["waiting"]]
        self.step = state["step"]
        self.losses = [loss.to(device()) for loss in state["losses"]]

    def share_losses(self) -> None:
        """Replace this process's losses by the means over all processes."""
        if self.own_losses:
            losses = torch.stack(self.own_losses)
            if self.network is not self.model:
                dist.all_reduce(losses)
                losses /= dist.get_world_size()
            self.losses += list(losses)
            self.own_losses = []

    def mean_loss(self) -> float:
        """The mean loss since this was asked before; waits for the device."""
        self.share_losses()
        mean = torch.stack(self.losses).mean()
        self.losses = []
        return mean.item()


def _gpu() -> Any:
    """torch's module of the GPU that computes, such as ``torch.cuda``; None on the CPU."""
    kind = device().type
    return None if kind == "cpu" else getattr(torch, kind)


def fit(
    open_model: Callable[[], nn.Module],
    sources: Callable[[Phase], Sequence[TrainingSet]],
    phases: Sequence[Phase],
    optimization: Optimization,
    seed: int,
    on_row: Callable[[LogRow], object] = lambda row: None,
    proxy: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
) -> nn.Module:
    """Train one network through its phases and return it in evaluation mode.

    `open_model` draws the initial weights from torch's generator, which is seeded first: the same
    seed starts from the same weights whatever the phases are. `sources` gives a phase its images:
    one set, or the real and the partner set of a joint phase. Each phase has a fresh optimizer and
    its share of the steps. `on_row` receives (step, phase, mean loss, learning rate) after every
    `log_every` steps of a phase, and after its last. `proxy` is the network of phases with proxy
    guidance; it is frozen.

    A run that finds the file of `checkpoint` gives its rows to `on_row`, continues from it, and
    ends with the same bytes as an uninterrupted run.
    """
    torch.manual_seed(seed)
    model = _placed(open_model(), optimization)
    network = _divided(model) if divides_batches(optimization) else model
    if proxy is not None:
        proxy = proxy.to(device()).eval().requires_grad_(False)
    saved = _read(checkpoint, optimization.steps)
    log: list[LogRow] = saved["log"] if saved else []
    for row in log:
        on_row(row)
    counts = phase_steps(optimization.steps, [phase.share for phase in phases])
    for number, (phase, steps) in enumerate(zip(phases, counts, strict=True)):
        before = sum(counts[:number])
        if saved and number < saved["phase"]:
            continue
        sets = sources(phase)
        state = _begin(model, network, phase, len(sets), optimization, [seed, number])
        if saved and number == saved["phase"]:
            state.load_state_dict(saved)
        for lr in _run_phase(state, proxy, sets, phase, optimization, steps):
            done = before + state.step
            if state.step % optimization.log_every == 0 or state.step == steps:
                log.append((done - 1, number, state.mean_loss(), lr))
                on_row(log[-1])
            if checkpoint is not None and done % checkpoint.every == 0:
                state.share_losses()
                reached = {"log": log, "phase": number, "done": done}
                if is_first():
                    save = partial(torch.save, state.state_dict() | reached)
                    write_finished(checkpoint.file, save)
    trained = state.average.module if state.average else model
    if network is not model:
        for buffer in trained.buffers():  # of batch normalisation: the first process's
            dist.broadcast(buffer, 0)
    return trained.eval()


def _placed(model: nn.Module, optimization: Optimization) -> nn.Module:
    """The model on its device, as it is trained."""
    torch.backends.cudnn.deterministic = optimization.deterministic
    torch.backends.cudnn.benchmark = not optimization.deterministic
    if optimization.sync_batch_norm and divides_batches(optimization):
        model = _synchronised(model)
    model = model.to(device()).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if optimization.compile:
        model.compile()
    return model


def divides_batches(optimization: Optimization) -> bool:
    """Whether this process trains on its rows of every batch, as others do on theirs."""
    return optimization.divide == "batch" and dist.is_initialized()


def _synchronised(model: nn.Module) -> nn.Module:
    """The model with the statistics of batch normalisation over the rows of all processes."""
    if device().type not in ("cuda", "xpu"):
        raise TruelikeError(
            f"train.sync_batch_norm: needs GPUs, and this machine computes on {device().type}; set "
            "it to false"
        )
    return convert_sync_batchnorm(model)


def _divided(model: nn.Module) -> nn.Module:
    """The model with gradients that are the mean over all processes."""
    own = [torch.cuda.current_device()] if device().type == "cuda" else None
    return DistributedDataParallel(model, device_ids=own, broadcast_buffers=False)


def _share(size: int, optimization: Optimization) -> Share:
    if not divides_batches(optimization):
        return Share(size)
    if size % dist.get_world_size():
        raise TruelikeError(
            f"train.batch_size: {dist.get_world_size()} processes cannot divide {size} images "
            "evenly (of a joint phase, half a batch of each set); change it or start fewer"
        )
    return Share(size, own_rows(size))


def _read(checkpoint: Checkpoint | None, steps: int) -> dict[str, Any] | None:
    if checkpoint is None or not finished(checkpoint.file):
        return None
    saved = torch.load(checkpoint.file, weights_only=True, map_location="cpu")
    if is_first():
        print(f"{checkpoint.file}: goes on after step {saved['done']} of {steps}", file=sys.stderr)
    return saved


def _begin(
    model: nn.Module,
    network: nn.Module,
    phase: Phase,
    sets: int,
    optimization: Optimization,
    seed: Sequence[int],
) -> PhaseState:
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**62)))
    if phase.reset_head:
        reset_head(model)
    augmentation = torch.Generator().manual_seed(int(rng.integers(2**62)))
    optimizer = create_optimizer_v2(
        model,
        opt=optimization.optimizer,
        lr=optimization.lr,
        weight_decay=optimization.weight_decay,
        momentum=0.9,
        # A first step that the scaler skips leaves the fused SGD with momentum that is never set.
        fused=optimization.dtype != "float16",
    )
    decay = optimization.ema_decay
    average = ModelEmaV3(model, decay, use_warmup=True) if decay else None
    scaler = torch.amp.GradScaler(device().type, enabled=optimization.dtype == "float16")
    waiting = [np.zeros(0, np.int64)] * sets
    return PhaseState(
        model, network, average, optimizer, scaler, seed, rng, augmentation, waiting, 0, [], []
    )


def _run_phase(
    state: PhaseState,
    proxy: nn.Module | None,
    sets: Sequence[TrainingSet],
    phase: Phase,
    optimization: Optimization,
    steps: int,
) -> Iterator[float]:
    """Take the phase's steps that are left, and yield the learning rate of each."""
    labels = [images.labels for images in sets]
    weights = phase.joint or (1.0,)
    batches = _streamed if optimization.streaming else _drawn
    for drawn in batches(state, sets, labels, phase, optimization, steps):
        lr = learning_rate(state.step, steps, phase.lr_scale, optimization)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        losses = []
        for weight, own_labels, (positions, pixels, share) in zip(
            weights, labels, drawn, strict=True
        ):
            inputs = _inputs(state, pixels, share, optimization)
            targets = torch.from_numpy(own_labels[positions]).to(inputs.device)
            with autocast(optimization.dtype):
                loss = batch_loss(
                    state.network,
                    proxy,
                    inputs,
                    targets,
                    phase,
                    optimization.label_smoothing,
                    state.rng,
                )
            losses.append(weight * loss)
        total = torch.stack(losses).sum()
        state.optimizer.zero_grad()
        state.scaler.scale(total).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        state.own_losses.append(total.detach())
        if state.average:
            state.average.update(state.model, step=state.step)
        yield lr


def autocast(dtype: str) -> torch.autocast:
    """Compute in `dtype` what can be, where that is not ``float32``."""
    reduced = torch.float16 if dtype == "float16" else torch.bfloat16
    return torch.autocast(device().type, reduced, enabled=dtype != "float32")


# Positions, pixels uint8 (B, H, W, 3), and what share of the batch they are.
Batch = tuple[np.ndarray, Tensor, Share]


def _drawn(
    state: PhaseState,
    sets: Sequence[TrainingSet],
    labels: Sequence[np.ndarray],
    phase: Phase,
    optimization: Optimization,
    steps: int,
) -> Iterator[list[Batch]]:
    """Batches of each set for the steps that are left, their order drawn as they are needed."""
    sizes = batch_sizes(phase, optimization.batch_size)
    for _ in range(state.step, steps):
        batches = []
        for number, (images, own, size) in enumerate(zip(sets, labels, sizes, strict=True)):
            draw_pass = partial(one_pass, own, optimization.sampling, state.rng)
            positions, state.waiting[number] = next_positions(
                state.waiting[number], draw_pass, size
            )
            share = _share(size, optimization)
            positions = positions[share.rows]
            pixels = torch.from_numpy(images.take(positions))
            pixels = pixels.pin_memory() if device().type == "cuda" else pixels
            batches.append((positions, pixels, share))
        yield batches


def _streamed(
    state: PhaseState,
    sets: Sequence[TrainingSet],
    labels: Sequence[np.ndarray],
    phase: Phase,
    optimization: Optimization,
    steps: int,
) -> Iterator[list[Batch]]:
    """Batches of each set for the steps that are left, fetched ahead in the order of their step."""
    sizes = batch_sizes(phase, optimization.batch_size)
    left = range(state.step, steps)
    shares = [_share(size, optimization) for size in sizes]
    streams = []
    for number, (images, own, share) in enumerate(zip(sets, labels, shares, strict=True)):
        seed = [*state.seed, number]
        order = streamed_positions(own, optimization.sampling, seed, share.batch, left)
        streams.append(fetched(images, (positions[share.rows] for positions in order)))
    for batches in zip(*streams, strict=True):
        yield [(*batch, share) for batch, share in zip(batches, shares, strict=True)]


def _inputs(state: PhaseState, pixels: Tensor, share: Share, optimization: Optimization) -> Tensor:
    """Augmented inputs of a network, float32 (B, 3, H, W), of pixels uint8 (B, H, W, 3)."""
    batch = pixels.to(device(), non_blocking=True).permute(0, 3, 1, 2)
    return augment(batch, optimization, *input_statistics(state.model), state.augmentation, share)


@torch.inference_mode()
def predict(model: nn.Module, images: Images, batch_size: int = 256) -> np.ndarray:
    """Class probabilities of images, without augmentation: float32 of shape (N, K)."""
    mean, std = input_statistics(model)
    where = next(model.parameters()).device
    starts = range(0, len(images), batch_size)
    parts = [np.arange(start, min(start + batch_size, len(images))) for start in starts]
    if isinstance(images, StoredImages):
        batches = (pixels for _, pixels in fetched(images, parts))
    else:
        batches = (torch.from_numpy(images.take(part)) for part in parts)
    probabilities = []
    for pixels in batches:
        inputs = normalise(pixels.permute(0, 3, 1, 2).to(where), mean, std)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        probabilities.append(model(inputs).float().softmax(1).cpu().numpy())
    return np.concatenate(probabilities)

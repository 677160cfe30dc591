"""Trains an arm once per seed, several seeds side by side, each with one thread; resumes from
checkpoints.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from truelike.paths import WEIGHTS
from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import end_with, one_thread, own_cores
from truelike.runtime.progress import Bar
from truelike.runtime.scratch import discard, finished, is_first, write_arrays, write_finished
from truelike.training.images import Images
from truelike.training.loop import Checkpoint, LogRow, divides_batches, fit, predict
from truelike.training.networks import open_classifier, open_proxy
from truelike.training.phases import phase_images
from truelike.training.settings import Optimization, Phase
from truelike.training.trained import save_weights


@dataclass(frozen=True)
class Training:
    """All that decides an arm's predictions, but for the seed; and how often what was trained so
    far is kept.
    """

    classifier: str
    num_classes: int
    phases: Sequence[Phase]
    optimization: Optimization
    real: Images
    partner: Images
    evaluated: dict[str, Images]  # by name, predicted after training
    checkpoint_every: int
    keep_weights: bool = False

    @property
    def has_teacher(self) -> bool:
        return any(phase.soft_labels for phase in self.phases)

    @property
    def resolution(self) -> int:
        return self.real.resolution


def seed_file(folder: Path, seed: int) -> Path:
    """Where a seed's result is kept: `log` (steps, 4) and the probabilities (N, K) by name of the
    evaluated images.
    """
    return folder / f"seed-{seed}.npz"


def weights_file(folder: Path, seed: int) -> Path:
    """Where a seed's trained weights are kept, if they are."""
    return folder / f"seed-{seed}" / WEIGHTS


def checkpoint_file(folder: Path, seed: int, network: Literal["student", "teacher"]) -> Path:
    """Where a network of a seed is kept until the seed has its result."""
    return folder / f"seed-{seed}-{network}.pt"


def train_seeds(
    training: Training, seeds: Sequence[int], folder: Path, workers: int | None = None
) -> None:
    """Train the seeds that have no file in `folder` yet, or lack the weights that are to be kept.

    On an accelerator, or with batches divided among processes, one after the other; on CPUs up to
    `workers` (default: the cores of this process) at once, each in a process with one thread, so
    that the bytes do not depend on their number. Raises RuntimeError if a process fails, after its
    own message.
    """
    pending = [seed for seed in seeds if not _has_result(training, seed, folder)]
    networks = 2 if training.has_teacher else 1
    steps = len(pending) * networks * training.optimization.steps
    with Bar("training", steps, "step", shown=is_first()) as bar:
        if device().type != "cpu":
            for seed in pending:
                _train_seed(training, seed, folder, bar.update)
        elif divides_batches(training.optimization):
            with one_thread():
                for seed in pending:
                    _train_seed(training, seed, folder, bar.update)
        elif pending:
            _train_in_processes(
                training, pending, folder, min(workers or own_cores(), len(pending)), bar
            )


def _has_result(training: Training, seed: int, folder: Path) -> bool:
    weights = not training.keep_weights or finished(weights_file(folder, seed))
    return weights and finished(seed_file(folder, seed))


def _train_seed(
    training: Training, seed: int, folder: Path, count: Callable[[int], object]
) -> None:
    log: list[LogRow] = []
    counted = _counted(count)

    def note(row: LogRow) -> None:
        log.append(row)
        counted(row)

    taught = _teach(training, seed, folder, count) if training.has_teacher else None
    proxy = None
    if any(phase.proxy_guidance for phase in training.phases):
        proxy = open_proxy(training.classifier, training.resolution)
    model = fit(
        partial(_open, training),
        lambda phase: phase_images(phase, training.real, training.partner, taught),
        training.phases,
        training.optimization,
        seed,
        on_row=note,
        proxy=proxy,
        checkpoint=_checkpoint(training, folder, seed, "student"),
    )
    if divides_batches(training.optimization) and not is_first():
        return
    results = {name: predict(model, images) for name, images in training.evaluated.items()}

    if training.keep_weights:
        weights_file(folder, seed).parent.mkdir(exist_ok=True)
        write_finished(weights_file(folder, seed), partial(save_weights, model))
    arrays = {"log": np.array(log)} | results
    write_finished(seed_file(folder, seed), partial(write_arrays, arrays=arrays))
    discard(checkpoint_file(folder, seed, "teacher"))
    discard(checkpoint_file(folder, seed, "student"))


def _teach(
    training: Training, seed: int, folder: Path, count: Callable[[int], object]
) -> np.ndarray:
    """What the network of the arm `real` with the same seed says of the partner images (N, K)."""
    teacher = fit(
        partial(_open, training),
        lambda _: [training.real],
        [Phase(on="real")],
        training.optimization,
        seed,
        on_row=_counted(count),
        checkpoint=_checkpoint(training, folder, seed, "teacher"),
    )
    return predict(teacher, training.partner)


def _counted(count: Callable[[int], object]) -> Callable[[LogRow], None]:
    """Tell `count` the number of steps between the rows of a log."""
    done = 0

    def note(row: LogRow) -> None:
        nonlocal done
        count(row[0] + 1 - done)
        done = row[0] + 1

    return note


def _open(training: Training) -> nn.Module:
    return open_classifier(
        training.classifier,
        training.num_classes,
        training.optimization.pretrained,
        training.resolution,
    )


def _checkpoint(
    training: Training, folder: Path, seed: int, network: Literal["student", "teacher"]
) -> Checkpoint:
    return Checkpoint(checkpoint_file(folder, seed, network), training.checkpoint_every)


def _train_in_processes(
    training: Training, pending: list[int], folder: Path, workers: int, bar: Bar
) -> None:
    # A forked child has the images and the imports for free. It is safe here because this process
    # computes with one thread, so that no thread pool is copied in a broken state; elsewhere than
    # on Linux, spawning is the safe way.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    steps = context.Value("q", 0)
    running: dict[Any, BaseProcess] = {}
    queue = list(pending)
    with one_thread():
        try:
            while queue or running:
                while queue and len(running) < workers:
                    seed = queue.pop(0)
                    process = context.Process(
                        target=_worker,
                        args=(training, seed, folder, steps, os.getpid()),
                        daemon=True,
                        name=f"seed {seed}",
                    )
                    process.start()
                    running[process.sentinel] = process
                for sentinel in wait(list(running), timeout=1):
                    process = running.pop(sentinel)
                    process.join()
                    if process.exitcode:
                        raise TruelikeError(
                            f"training of {process.name} ended with status {process.exitcode}; "
                            "what it says is above (-9: the system ended it, most often for want "
                            "of memory); what is finished is kept"
                        )
                bar.update(steps.value - bar.done)
        finally:
            for process in running.values():
                process.terminate()


def _worker(training: Training, seed: int, folder: Path, steps: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)

    def count(number: int) -> None:
        with steps.get_lock():
            steps.value += number

    try:
        _train_seed(training, seed, folder, count)
    except TruelikeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)

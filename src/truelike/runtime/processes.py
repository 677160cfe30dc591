"""The processes of one stage under torchrun: each does its share, the first writes the result."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from joblib import cpu_count
from torch import Tensor

from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError

# of torch.distributed, where processes have an accelerator each
BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums have the same order on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def joined(timeout: timedelta | None = None) -> Iterator[None]:
    """Join torch.distributed if torchrun launched this process; otherwise do nothing.

    Each process takes a GPU of its own where there are any. `timeout` is how long one waits for
    another, torch's default if None. A process ends when its torchrun is killed.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    kind = device().type
    if kind in BACKENDS:
        take_gpu(getattr(torch, kind))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group(BACKENDS.get(kind, "gloo"), timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def take_gpu(gpu: Any) -> None:
    """Make this process compute on the GPU of its local rank; `gpu` is torch's module of it.

    Raises TruelikeError where there are too few, or TRUELIKE_DEVICE gives all processes the same.
    """
    rank, here = int(os.environ["LOCAL_RANK"]), gpu.device_count()
    if device().index is not None and process_count() > 1:
        raise TruelikeError(
            f"TRUELIKE_DEVICE: {device()} is one GPU, and torchrun started {process_count()} "
            f"processes; name {device().type} without a number"
        )
    if rank >= here:
        raise TruelikeError(
            f"torchrun: started {os.environ['LOCAL_WORLD_SIZE']} processes on a machine with "
            f"{here} GPUs; give --nproc-per-node {here}, or set TRUELIKE_DEVICE=cpu"
        )
    gpu.set_device(rank)


def end_with(parent: int) -> None:
    """End this process when process `parent` ends, so that its lock is free for the next run."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def own_cores() -> int:
    """The cores that this process may use, at least one: of those that the machine, its container
    or its scheduler allow, an equal share where torchrun started several processes.
    """
    return max(1, cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def process_count() -> int:
    """How many processes torchrun started for this stage, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def own_part() -> slice:
    """The elements of a sequence that are this process's share."""
    return (
        slice(dist.get_rank(), None, dist.get_world_size())
        if dist.is_initialized()
        else slice(None)
    )


def wait_for_all() -> None:
    """Wait for all processes, handling signals meanwhile."""
    if dist.is_initialized():
        arrival = dist.all_reduce(torch.zeros(1), async_op=True)
        while not arrival.is_completed():
            time.sleep(0.1)
        arrival.wait()


def own_rows(count: int) -> slice:
    """The rows of a batch of `count` that are this process's share.

    Raises TruelikeError if there are more processes than rows.
    """
    if dist.is_initialized() and count < dist.get_world_size():
        raise TruelikeError(
            f"torchrun: {dist.get_world_size()} processes for batches of {count} images; start "
            "fewer"
        )
    return own_part()


def all_rows(own: Tensor, count: int) -> Tensor:
    """All `count` rows (count, ...), of which `own` are this process's; these alone have a
    gradient.

    A loss of all rows is then the same in every process, and its gradient is the sum of those in
    the processes.
    """
    if not dist.is_initialized():
        return own
    rows = own.new_zeros(count, *own.shape[1:])
    rows[own_rows(count)] = own.detach()
    dist.all_reduce(rows)
    rows[own_rows(count)] = own
    return rows


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum the gradients over all processes, in each of them."""
    if dist.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)

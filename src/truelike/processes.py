"""The processes that torchrun starts for one stage: each computes its rows of every batch, the first one writes."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from truelike.errors import TruelikeError


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, each with its own GPU where there are any; else do nothing."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_rows(count: int) -> slice:
    """Which of `count` rows are this process's; raises TruelikeError if there are not enough for every process."""
    if not dist.is_initialized():
        return slice(None)
    if count < dist.get_world_size():
        raise TruelikeError(f"torchrun: {dist.get_world_size()} processes for batches of {count} images; start fewer")
    return slice(dist.get_rank(), None, dist.get_world_size())


def all_rows(own: Tensor, count: int) -> Tensor:
    """All `count` rows (count, ...), of which `own` are this process's; these alone have a gradient.

    A loss of all rows is then the same in every process, and its gradient is the sum of those in the processes.
    """
    if not dist.is_initialized():
        return own
    rows = own.new_zeros(count, *own.shape[1:])
    rows[own_rows(count)] = own.detach()
    dist.all_reduce(rows)
    rows[own_rows(count)] = own
    return rows


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in each of them."""
    if dist.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)

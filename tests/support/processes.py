"""Two processes as torchrun starts them."""

import multiprocessing
import os
import socket
from functools import partial
from pathlib import Path

import torch

from truelike.runtime.processes import joined


def as_one_of_two(rank: int, port: int, work: partial, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    )
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"})
    with joined():
        work(folder)


def run_two(work: partial, parent: Path) -> list[int | None]:
    """The exit codes of two processes that work in ``parent/0`` and ``parent/1``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    both = [
        fork.Process(target=as_one_of_two, args=(rank, port, work, parent / str(rank)))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    return [process.exitcode for process in both]

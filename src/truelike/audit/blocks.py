"""Matrices between two samples of feature vectors, a block of rows at a time.

Memory at N = 100,000 per sample and D = 1,024: 0.8 GiB for two samples in float32, 1.5 GiB for
their float64 copies and a few temporaries of BLOCK numbers (64 MiB each) per worker, so below 4
GiB; nothing of size N x N is ever held.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from joblib import cpu_count

BLOCK = 2**23  # numbers in one block of a matrix between two samples
WORKERS = min(4, cpu_count())  # blocks at once


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` that, times `columns`, stay within BLOCK numbers."""
    size = max(1, BLOCK // max(1, columns))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def map_blocks(function: Callable[[slice], Any], rows: int, columns: int) -> Iterator[Any]:
    """`function` of all `blocks`, in their order, WORKERS at once, since numpy computes outside the
    lock.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(function, blocks(rows, columns))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances between all vectors of two samples, shape (N_first, N_second)."""
    squares = first @ second.T
    squares *= -2
    squares += (first**2).sum(1)[:, None]
    squares += (second**2).sum(1)
    return np.sqrt(np.clip(squares, 0, None, out=squares), out=squares)

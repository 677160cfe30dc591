"""Fidelity measures against torchmetrics and prdc on random features:
``python -m benchmarks.metrics``.
"""

import argparse
import contextlib
import io
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from prdc import compute_prdc
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks import compare, table, write
from truelike.audit.coverage import manifold_metrics
from truelike.audit.fidelity import frechet_distance

NEIGHBOURS = 5


def features(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of normal vectors, float32 (count, width), the second shifted."""
    draw = np.random.default_rng(0)
    first, second = (draw.normal(size=(count, width)).astype(np.float32) for _ in range(2))
    return first, second + np.float32(0.1)


def our_manifold(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage."""
    return {
        name: float(values.mean())
        for name, values in manifold_metrics(real, fake, NEIGHBOURS).items()
    }


def usual_manifold(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The same by prdc."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real_features=real, fake_features=fake, nearest_k=NEIGHBOURS)
    return {name: float(value) for name, value in found.items()}


def our_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The Fréchet distance."""
    return float(frechet_distance(real, fake))


def usual_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The same by torchmetrics."""
    identity = nn.Identity()
    identity.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    for values, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(values).double(), real=is_real)
    return float(metric.compute())


def peak_mib(run: Callable[[], object]) -> float:
    """The most memory that numpy's arrays take during one call."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="of each sample")
    parser.add_argument("--few", type=int, default=160, help="as small a sample as the demo's")
    parser.add_argument("--width", type=int, default=512, help="of a feature vector")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    samples = features(arguments.images, arguments.width)
    manifold = {
        "prdc": partial(usual_manifold, *samples),
        "truelike": partial(our_manifold, *samples),
    }
    lines = [
        "Precision, recall, density and coverage:",
        "",
        *table(compare(manifold, arguments.repeats), "prdc"),
        "",
    ]
    lines += [
        "Peak memory of arrays: "
        f"{', '.join(f'{k} {peak_mib(v):.0f} MiB' for k, v in manifold.items())}.",
        "",
    ]
    for count in (arguments.images, arguments.few):
        pair = features(count, arguments.width)
        distance = {
            "torchmetrics": partial(usual_distance, *pair),
            "truelike": partial(our_distance, *pair),
        }
        costs = table(compare(distance, arguments.repeats), "torchmetrics")
        lines += [f"Fréchet distance of {count:,} images:", "", *costs, ""]
    write("metrics", lines[:-1])


if __name__ == "__main__":
    main()

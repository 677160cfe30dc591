"""Fidelity and diversity against values computed by hand and against torchmetrics and prdc."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from truelike.audit import blocks
from truelike.audit.coverage import manifold_metrics
from truelike.audit.diversity import vendi_score
from truelike.audit.fidelity import (
    frechet_distance,
    kernel_distance,
    median_distance,
    polynomial,
    rbf,
)
from truelike.evaluation.intervals import class_resamples

ROOT = Path(__file__).resolve().parents[2]


def features(seed: int, size: int, dim: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, dim)) * np.linspace(0.5, 2, dim) + shift).astype(np.float32)


@pytest.fixture(params=[2**23, 1300], ids=["one block", "many blocks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", request.param)


@pytest.mark.parametrize("dim", [12, 150], ids=["more images than dimensions", "fewer"])
def test_frechet_distance_is_that_of_torchmetrics(dim: int) -> None:
    real, fake = features(0, 90, dim), features(1, 110, dim, shift=0.3)
    first, second = torch.from_numpy(real).double(), torch.from_numpy(fake).double()
    expected = _compute_fid(first.mean(0), first.T.cov(), second.mean(0), second.T.cov()).item()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_by_hand() -> None:
    real = np.array([[-1.0], [1.0]])  # variance 2
    fake = np.array([[1.0], [5.0]])  # variance 8, mean 3
    assert frechet_distance(real, fake) == pytest.approx(9 + (np.sqrt(8) - np.sqrt(2)) ** 2)


def test_frechet_distance_of_fewer_images_than_dimensions_is_zero_for_a_sample_and_itself() -> None:
    real = features(0, 6, dim=20)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("chunks")
def test_kernel_distance_is_that_of_torchmetrics() -> None:
    real, fake = features(0, 100), features(1, 100, shift=0.5)
    first, second = torch.from_numpy(real).double(), torch.from_numpy(fake).double()
    assert kernel_distance(real, fake, polynomial) == pytest.approx(
        poly_mmd_of(first, second), rel=1e-4
    )


def poly_mmd_of(first: torch.Tensor, second: torch.Tensor) -> float:
    return poly_mmd(first, second, degree=3, gamma=None, coef=1.0).item()


def test_kernel_distance_by_hand() -> None:
    real, fake = np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]])
    within_real, within_fake = 1.0, 1.0  # k(0, 1) = k(2, 0) = 1
    between = (1 + 1 + 27 + 1) / 4  # k(0,2), k(0,0), k(1,2), k(1,0)
    assert kernel_distance(real, fake, polynomial) == pytest.approx(
        within_real + within_fake - 2 * between
    )


def means(real: np.ndarray, fake: np.ndarray, neighbours: int) -> dict[str, float]:
    return {
        name: float(values.mean())
        for name, values in manifold_metrics(real, fake, neighbours).items()
    }


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("neighbours", [1, 5])
def test_manifold_metrics_are_those_of_prdc(neighbours: int) -> None:
    real, fake = features(0, 90), features(1, 110, shift=0.4)
    expected = compute_prdc(real.astype(np.float64), fake.astype(np.float64), neighbours)
    assert means(real, fake, neighbours) == pytest.approx(expected, rel=1e-4)


def test_manifold_metrics_by_hand() -> None:
    real = np.array([[0.0], [1.0], [10.0], [12.0]])  # radii 1, 1, 2, 2
    fake = np.array([[0.5], [0.6], [30.0]])  # radii 0.1, 0.1, 29.4
    found = manifold_metrics(real, fake, 1)
    assert found["precision"].tolist() == [1, 1, 0]
    assert found["density"].tolist() == [2, 2, 0]
    assert found["coverage"].tolist() == [1, 1, 0, 0]
    assert found["recall"].tolist() == [0, 1, 1, 1]  # 1, 10 and 12 lie within 29.4 of 30


@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_fidelity_invariants(seed: int, shift: float) -> None:
    real, fake = features(seed, 30, 5), features(seed + 1, 40, 5, shift)
    rotation = np.linalg.qr(features(seed + 2, 5, 5))[0]
    assert frechet_distance(real, fake) >= 0
    assert frechet_distance(real, fake) == pytest.approx(
        frechet_distance(fake, real), rel=1e-6, abs=1e-6
    )
    turned = frechet_distance(real @ rotation, fake @ rotation)
    assert turned == pytest.approx(frechet_distance(real, fake), rel=1e-3, abs=1e-3)
    assert kernel_distance(real, fake, polynomial) == pytest.approx(
        kernel_distance(fake, real, polynomial), rel=1e-9, abs=1e-9
    )
    itself = means(real, real, 3)
    assert itself["precision"] == itself["recall"] == itself["coverage"] == 1
    found = means(real, fake, 3)
    assert all(0 <= found[name] <= 1 for name in ("precision", "recall", "coverage"))


@pytest.mark.usefixtures("chunks")
def test_rbf_kernel_distance_is_the_sum_over_pairs() -> None:
    real, fake = features(0, 40), features(1, 30, shift=0.5)

    def mean(first: np.ndarray, second: np.ndarray, own: bool) -> float:
        pairs = [
            (a, b)
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if not (own and i == j)
        ]
        return float(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * 3.0**2)) for a, b in pairs]))

    expected = mean(real, real, True) + mean(fake, fake, True) - 2 * mean(real, fake, False)
    assert kernel_distance(real, fake, rbf(3.0)) == pytest.approx(expected, rel=1e-4)


def test_median_distance_by_hand() -> None:
    assert median_distance(np.array([[0.0], [1.0], [4.0]])) == 3  # 1, 3, 4


def test_vendi_score_counts_different_images() -> None:
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score(np.ones((7, 3))) == pytest.approx(1)
    assert vendi_score(np.repeat(np.eye(3), [2, 2, 2], axis=0) * 5) == pytest.approx(3)
    thirds = np.repeat(np.eye(2), [2, 1], axis=0)
    assert vendi_score(thirds) == pytest.approx(
        np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    )


@pytest.mark.parametrize("size", [20, 40], ids=["fewer images than features", "more"])
def test_vendi_score_is_that_of_the_similarity_matrix(size: int) -> None:
    values = features(0, size, 30).astype(float)
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(units @ units.T / size)
    eigenvalues = eigenvalues[eigenvalues > 1e-9]
    assert vendi_score(values) == pytest.approx(
        np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-6
    )
    counts = np.random.default_rng(1).multinomial(size, np.full(size, 1 / size), 2)
    drawn = [np.repeat(values, count, axis=0) for count in counts]
    expected = [float(vendi_score(v)) for v in drawn]
    assert vendi_score(values, counts) == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dim", [12, 70], ids=["more images than dimensions", "fewer"])
def test_a_resample_is_the_measure_of_the_images_drawn(dim: int) -> None:
    real, fake = features(0, 50, dim), features(1, 60, dim, shift=0.4)
    rng = np.random.default_rng(2)
    counts = class_resamples(np.zeros(50, int), 3, rng), class_resamples(np.zeros(60, int), 3, rng)
    distances, scores = frechet_distance(real, fake, counts), vendi_score(fake, counts[1])
    for draw in range(3):
        first, second = (
            np.repeat(v, c[draw].astype(int), axis=0)
            for v, c in zip((real, fake), counts, strict=True)
        )
        assert distances[draw] == pytest.approx(frechet_distance(first, second), rel=1e-6)
        assert scores[draw] == pytest.approx(vendi_score(second), rel=1e-6)


@pytest.mark.parametrize("kernel", [polynomial, rbf(4.0)], ids=["polynomial", "rbf"])
def test_resampling_does_not_shift_the_kernel_distance(kernel) -> None:
    real, fake = features(0, 40), features(1, 40, shift=0.3)
    rng = np.random.default_rng(3)
    counts = (
        class_resamples(np.zeros(40, int), 3000, rng),
        class_resamples(np.zeros(40, int), 3000, rng),
    )
    draws = kernel_distance(real, fake, kernel, counts)
    assert draws.mean() == pytest.approx(
        kernel_distance(real, fake, kernel), abs=4 * draws.std() / np.sqrt(3000)
    )
    once = kernel_distance(real, fake, kernel, (np.ones((1, 40)), np.ones((1, 40))))
    assert once[0] == pytest.approx(kernel_distance(real, fake, kernel), rel=1e-9)


def test_memory_is_that_of_the_samples_and_a_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2**16)
    real, fake = features(0, 3000, 8), features(1, 3000, 8)
    tracemalloc.start()
    manifold_metrics(real, fake, 5)
    kernel_distance(real, fake, rbf(4.0))
    kernel_distance(real, fake, polynomial)
    frechet_distance(real, fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    samples = 8 * 8 * (len(real) + len(fake))
    assert peak < 3 * samples + 8 * (8 * 2**16)
    assert 3 * samples + 8 * (8 * 2**16) < 3000 * 3000 * 8 / 10  # a tenth of one whole matrix


PEAK = """
import re
from pathlib import Path
import numpy as np
from truelike.audit.coverage import manifold_metrics
from truelike.audit.diversity import vendi_score
from truelike.audit.fidelity import frechet_distance, kernel_distance, polynomial

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

draw = np.random.default_rng(0)
real, fake = (draw.standard_normal((12_000, 64), np.float32) for _ in range(2))
before = peak()
manifold_metrics(real, fake, 5)
kernel_distance(real, fake, polynomial)
frechet_distance(real, fake)
vendi_score(fake)
print(peak() - before)
"""


@pytest.mark.slow
def test_a_process_stays_far_below_one_matrix_between_the_samples() -> None:
    """12,000 x 12,000 distances would take 1,099 MiB; 100,000 x 100,000, of which a block is as
    large, 76 GiB.
    """
    source = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "-c", PEAK]
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    grown = float(done.stdout)
    assert 64 < grown < 450  # MiB: a block is 64, the samples in float64 are 12

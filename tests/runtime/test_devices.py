"""The device that computes: the first there is, or the one that the environment names."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from truelike.runtime import executor
from truelike.runtime.devices import check_dtype, device, training_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.ledger import device_name, gpu_peak
from truelike.runtime.processes import take_gpu


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Turns this machine into one with some kinds of accelerators, two of each."""

    def have(*kinds: str) -> None:
        monkeypatch.delenv("TRUELIKE_DEVICE", raising=False)
        for kind in ("cuda", "mps", "xpu"):
            module = getattr(torch, kind)
            monkeypatch.setattr(module, "is_available", lambda found=kind in kinds: found)
            monkeypatch.setattr(module, "device_count", lambda found=kind in kinds: 2 * found)

    return have


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), "cpu"),
        (("cuda",), "cuda"),
        (("mps",), "mps"),
        (("xpu",), "xpu"),
        (("xpu", "cuda"), "cuda"),
    ],
)
def test_the_first_accelerator_is_taken(machine, kinds: tuple[str, ...], expected: str) -> None:
    machine(*kinds)
    assert device() == torch.device(expected)


@pytest.mark.parametrize(
    ("kinds", "named", "expected"),
    [
        ((), "", "cpu"),
        (("cuda",), "", "cuda card of cuda"),
        (("cuda",), "cuda:1", "cuda card of cuda:1"),
        (("cuda",), "cpu", "cpu"),
        (("mps",), "", "mps"),
        (("xpu",), "", "xpu card of xpu"),
    ],
)
def test_a_cost_names_the_hardware_that_computed(
    machine, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], named: str, expected: str
) -> None:
    machine(*kinds)
    monkeypatch.setenv("TRUELIKE_DEVICE", named)
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        monkeypatch.setattr(
            module, "get_device_name", lambda where, kind=kind: f"{kind} card of {where}"
        )
        monkeypatch.setattr(module, "max_memory_allocated", lambda where: 3 * 2**20)
    assert device_name() == expected
    assert gpu_peak() == (3 if " card of " in expected else None)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "xpu:0"])
def test_the_environment_chooses(machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine("cuda", "xpu")
    monkeypatch.setenv("TRUELIKE_DEVICE", name)
    assert device() == torch.device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "no device 'gpu'; give cuda, mps, xpu or cpu"),
        ("cuda:x", "no device 'cuda:x'"),
        ("mps", "this machine has no 'mps'; it has cuda, cpu"),
        ("cuda:2", "this machine has no 'cuda:2'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    machine, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    machine("cuda")
    monkeypatch.setenv("TRUELIKE_DEVICE", name)
    with pytest.raises(TruelikeError, match=f"TRUELIKE_DEVICE: {message}"):
        device()


def test_a_type_that_the_device_cannot_compute_in_is_refused(
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    check_dtype("bfloat16")
    with pytest.raises(TruelikeError, match=r"models\.dtype: float16 is for accelerators"):
        check_dtype("float16")
    machine("cuda")
    check_dtype("float16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "GTX 1080")
    with pytest.raises(TruelikeError, match=r"models\.dtype: GTX 1080 cannot compute in bfloat16"):
        check_dtype("bfloat16")


def test_training_has_the_range_of_float32() -> None:
    assert [training_dtype(name) for name in ("float32", "bfloat16", "float16")] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]


@pytest.mark.parametrize(("named", "seen"), [("cpu", ""), ("", "0"), ("cuda:1", "0")])
def test_on_the_cpu_torch_sees_no_gpu(named: str, seen: str) -> None:
    """It would ask CUDA, and after that no forked process can."""
    code = "import truelike, os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    environment = os.environ | {"TRUELIKE_DEVICE": named, "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == seen


@pytest.mark.parametrize(
    ("named", "rank", "message"),
    [
        ("", "1", None),
        (
            "",
            "2",
            "torchrun: started 3 processes on a machine with 2 GPUs; give --nproc-per-node 2",
        ),
        ("cuda:1", "0", "TRUELIKE_DEVICE: cuda:1 is one GPU, and torchrun started 3 processes"),
    ],
)
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(
    machine, monkeypatch: pytest.MonkeyPatch, named: str, rank: str, message: str | None
) -> None:
    machine("cuda")
    sizes = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "3"}
    for name, value in {"TRUELIKE_DEVICE": named, "TORCHELASTIC_RUN_ID": "1", **sizes}.items():
        monkeypatch.setenv(name, value)
    taken: list[int] = []
    gpu = SimpleNamespace(device_count=lambda: 2, set_device=taken.append)
    if message is None:
        take_gpu(gpu)
        assert taken == [1]
    else:
        with pytest.raises(TruelikeError, match=message):
            take_gpu(gpu)
        assert not taken


@pytest.mark.parametrize(
    ("kinds", "named", "expected"),
    [
        (("cuda",), "", ("cuda", 1, None)),
        (("cuda",), "cuda:1", ("cuda", 1, None)),  # a task sees one GPU, the first
        (("cuda",), "cpu", ("cpu", None, torch.get_num_threads())),
        ((), "", ("cpu", None, torch.get_num_threads())),  # whatever the cluster has
    ],
)
def test_ray_computes_on_what_this_process_does(
    machine,
    monkeypatch: pytest.MonkeyPatch,
    kinds: tuple[str, ...],
    named: str,
    expected: tuple[str, int | None, int | None],
) -> None:
    machine(*kinds)
    monkeypatch.setenv("TRUELIKE_DEVICE", named)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": 4.0, "CPU": 8.0})
    asked = executor._resources()
    kind = asked["runtime_env"]["env_vars"]["TRUELIKE_DEVICE"]
    assert (kind, asked.get("num_gpus"), asked.get("num_cpus")) == expected

"""The device that computes: the first there is, or the one that the environment names."""

import pytest
import torch

from truelike.runtime.devices import check_dtype, device, training_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.ledger import device_name, gpu_peak


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

"""Which device computes, and in which type."""

import os

import torch

from truelike.runtime.errors import TruelikeError

ACCELERATORS = ("cuda", "mps", "xpu")  # in the order in which one is taken


def device() -> torch.device:
    """The device that the environment's TRUELIKE_DEVICE names, or else the first accelerator there
    is, or else the CPU.

    The name is a type of device with or without a number: ``cuda``, ``cuda:1``, ``mps``, ``xpu``,
    ``cpu``. Raises TruelikeError for another name, or a device that is not there.
    """
    here = [*filter(_is_there, ACCELERATORS), "cpu"]
    name = os.environ.get("TRUELIKE_DEVICE") or here[0]
    kind, _, number = name.partition(":")
    if kind not in (*ACCELERATORS, "cpu") or (number and not number.isdigit()):
        raise TruelikeError(
            f"TRUELIKE_DEVICE: no device {name!r}; give {', '.join(ACCELERATORS)} or cpu, with or "
            "without a number as in cuda:1, or do not set it"
        )
    if kind not in here or (number and int(number) >= _count(kind)):
        raise TruelikeError(
            f"TRUELIKE_DEVICE: this machine has no {name!r}; it has {', '.join(here)}"
        )
    return torch.device(name)


def _is_there(kind: str) -> bool:
    return bool(getattr(torch, kind).is_available())


def _count(kind: str) -> int:
    return int(getattr(torch, kind).device_count())


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a name such as ``bfloat16``."""
    return getattr(torch, name)


def training_dtype(name: str) -> str:
    """The type of frozen weights and of the forward pass in training: bfloat16 in place of float16,
    for its range needs no loss scaling.
    """
    return "bfloat16" if name == "float16" else name


def check_dtype(name: str) -> None:
    """Raise TruelikeError unless the device can compute in the type ``models.dtype``."""
    where = device()
    if name == "float16" and where.type == "cpu":
        raise TruelikeError(
            "models.dtype: float16 is for accelerators, and this machine computes on the CPU; set "
            "it to float32 or bfloat16"
        )
    if name == "bfloat16" and where.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise TruelikeError(
            f"models.dtype: {torch.cuda.get_device_name(where)} cannot compute in bfloat16; set it "
            "to float32"
        )

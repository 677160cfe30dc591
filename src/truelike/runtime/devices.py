"""Which device computes, and in which type."""

import torch


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a name such as ``bfloat16``."""
    return getattr(torch, name)

"""Synthetic training images that are true to your real ones."""

import importlib
import os
from typing import Any

from truelike.runtime import torchvision as _torchvision

_torchvision.install()
if os.environ.get("TRUELIKE_DEVICE") == "cpu":
    # torch asks CUDA how many GPUs there are, and then a forked process cannot ask again
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``truelike.load``, found when it is asked for: it needs torch, and no stage needs it."""
    if name == "load":
        return importlib.import_module("truelike.sharing.load").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Synthetic training images that are true to your real ones."""

from truelike import _torchvision

_torchvision.install()

__version__ = "0.1.0"

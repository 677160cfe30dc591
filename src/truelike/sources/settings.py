"""The sections `data`, `corrupt` and `ood` of params.yaml."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from truelike.runtime.settings import Count, Fraction, Positive, Section


class Data(Section):
    """Which real images, how they become squares, and how many of them are for training."""

    source: str
    resolution: Positive
    square: Literal["crop", "pad", "stretch"]
    shots: Positive | None
    validation_fraction: Fraction
    test_fraction: Fraction
    seed: Count
    exclude: tuple[str, ...]


CorruptionName = Literal["noise", "blur", "contrast", "brightness", "pixelate", "jpeg"]


class Corrupt(Section):
    """Which corruptions of how many test images the trained networks are tested on."""

    images_per_class: Count | None
    kinds: tuple[CorruptionName, ...]
    seed: Count


class OodSet(Section):
    """A further test set: its source, and our names of its classes where they differ.

    Only the logits of `classes` compete; None for those that it has images of.
    """

    source: str
    class_map: Mapping[str, str] = Field(default_factory=dict)
    classes: tuple[str, ...] | None = None

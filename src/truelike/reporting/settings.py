"""The section `report` of params.yaml."""

from typing import Literal

from truelike.runtime.settings import Positive, Section


class Rung(Section):
    """An arm that learns from images of one kind alone, and the gap that is closed from the rung
    before to this one.
    """

    arm: str
    closes: Literal["content", "appearance", "label", "quantity"] | None = None


class Report(Section):
    title: str
    pictures_per_class: Positive
    waterfall: tuple[Rung, ...]

"""The section `report` of params.yaml."""

from typing import Literal

from pydantic import field_validator

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

    @field_validator("waterfall")
    @classmethod
    def _arms_differ(cls, rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
        arms = [rung.arm for rung in rungs]
        if "real" in arms or len(set(arms)) != len(arms):
            raise ValueError(f"must name arms other than real, each once, found {arms}")
        return rungs

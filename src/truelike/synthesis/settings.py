"""The sections `naive`, `synthesize`, `partial` and `rounds` of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from truelike.generator.settings import SamplerName
from truelike.paths import ARMS
from truelike.runtime.settings import (
    NAME,
    Count,
    DistinctCounts,
    Name,
    NonNegative,
    Positive,
    Probability,
    Section,
    Seed,
    Text,
)


class Naive(Section):
    """The baseline: plain text-to-image from class prompts, nothing learned from the real
    images.
    """

    sampler: SamplerName
    steps: Positive
    guidance_scale: NonNegative
    batch_size: Positive
    shard_size: Positive
    seed: Seed


Policy = Literal["each", "balanced", "unlearned", "uncertain"]


class JudgeSettings(Section):
    """The networks that judge the real images for `allocation`: one for each fold."""

    folds: Annotated[int, Field(ge=2)]
    steps: Positive


class FeedbackSettings(Section):
    """Guidance by a network in the directory `network`, an arm's or its own: images that it is less
    sure of, or more wrong about, by `weight` at every `every`-th step.
    """

    criterion: Literal["off", "entropy", "loss"]
    weight: Annotated[float, Field(gt=0)]
    every: Positive
    network: Text

    @property
    def is_on(self) -> bool:
        return self.criterion != "off"

    @property
    def arm(self) -> str | None:
        """The arm whose network is asked; None when none is, or one that no arm trained."""
        network = Path(self.network)
        asked = self.is_on and ARMS in network.parents
        return network.relative_to(ARMS).parts[0] if asked else None


class Synthesize(Section):
    """How synthetic images are made, and of which real ones: `budget` images of each replica, None
    for as many as there are real ones.
    """

    replicas: DistinctCounts
    allocation: Policy
    budget: Positive | None
    judge: JudgeSettings
    sampler: SamplerName
    steps: Positive
    guidance_scale: NonNegative
    guidance_interval: tuple[Probability, Probability]
    strength: Annotated[float, Field(gt=0, le=1)]
    lora_scale: Annotated[float, Field(ge=0, le=2)]
    feedback: FeedbackSettings
    batch_size: Positive
    shard_size: Positive
    seed: Seed

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError(
                "must be two rising fractions of the noise levels such as [0.0, 1.0], found "
                f"{list(interval)}"
            )
        return interval

    @property
    def is_judged(self) -> bool:
        """Whether networks decide the allocation."""
        return self.allocation in ("unlearned", "uncertain")


Piece = Literal["caption", "style", "adapter", "prior"]


class PartialSet(Section):
    """One replica of synthetic images without some of what `synthesize` uses; the rest as there."""

    without: tuple[Piece, ...]

    @model_validator(mode="after")
    def _adapter_keeps_its_style(self) -> "PartialSet":
        if "style" in self.without and "adapter" not in self.without:
            raise ValueError(
                "the adapter was trained with the style: without style there can be no adapter "
                "either"
            )
        return self


class Round(Section):
    """One replica, number `replica`, made by what the network of the arm `after` finds hard; the
    images of the set `adds_to` stay beside it.
    """

    after: Name
    adds_to: Annotated[str, Field(pattern=rf"^(synthetic|rounds/{NAME})$")]
    replica: Count
    allocation: Literal["each", "uncertain"]
    criterion: Literal["off", "entropy", "loss"]

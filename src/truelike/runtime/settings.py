"""What the settings of every room are built of: a strict, frozen section, and bounded numbers."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # torch takes 64 bits, of which some count steps
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Resamples = Annotated[int, Field(ge=100)]  # fewer give no 95 % interval
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


def _is_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(
            "a name of a stage and a folder: up to 60 of a-z, 0-9, _ and -, the first a letter or "
            f"digit; found {name!r}"
        )
    return name


def _some_distinct(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(
            f"must be a list of distinct numbers such as [0, 1, 2], found {list(numbers)}"
        )
    return numbers


NAME = "[a-z0-9][a-z0-9_-]{0,59}"
Name = Annotated[str, AfterValidator(_is_name)]  # DVC, the shell and file systems all take it
DistinctCounts = Annotated[tuple[Count, ...], AfterValidator(_some_distinct)]
DistinctSeeds = Annotated[tuple[Seed, ...], AfterValidator(_some_distinct)]

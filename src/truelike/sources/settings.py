"""The sections `data`, `corrupt` and `ood` of params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from truelike.runtime.settings import Count, Fraction, Positive, Section, Seed, Text

Depth = Literal["full", "minmax", "percentile"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)]


class Splits(Section):
    """Which folders and files of a source are of which split: patterns from its root, one or
    several.
    """

    train: Patterns = ()
    validation: Patterns = ()
    test: Patterns = ()

    @model_validator(mode="after")
    def _names_something(self) -> "Splits":
        if not (self.train or self.validation or self.test):
            raise ValueError(
                "must name a folder or a file pattern for train, validation or test, or be null"
            )
        return self


class Reading(Section):
    """A source and how it is read; ``docs/data.md`` has the rule by which splits and classes are
    found.
    """

    source: Text
    config: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    splits: Splits | None = None
    skip_bad: bool = False
    skip_unlabelled: bool = False
    skip_unused: bool = False
    depth: Depth = "full"


def _as_shots(value: Any) -> int | dict[str, int | None] | None:
    """A number of images, or one for each class."""
    if isinstance(value, Mapping):
        return {str(name): None if own is None else _as_number(own) for name, own in value.items()}
    return None if value is None else _as_number(value)


def _as_number(value: Any) -> int:
    try:
        return TypeAdapter(Positive).validate_python(value)
    except ValidationError:
        raise ValueError(
            "must be a number above 0, a number for each class such as {boot: 16, bag: 4}, or "
            f"null, found {value!r}"
        ) from None


class Data(Reading):
    """Which real images, how they become squares, and how many of them are for training: `shots`
    of every class, or a number for each, None for all.
    """

    resolution: Positive
    square: Literal["crop", "pad", "stretch"]
    shots: Annotated[int | dict[str, int | None] | None, PlainValidator(_as_shots)]
    validation_fraction: Fraction
    test_fraction: Fraction
    seed: Seed
    exclude: tuple[Text, ...]


CorruptionName = Literal["noise", "blur", "contrast", "brightness", "pixelate", "jpeg"]


class Corrupt(Section):
    """Which corruptions of how many test images the trained networks are tested on."""

    images_per_class: Count | None
    kinds: tuple[CorruptionName, ...]
    seed: Seed

    @field_validator("kinds")
    @classmethod
    def _distinct(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"must be distinct, found {list(kinds)}")
        return kinds


class OodSet(Reading):
    """A further test set: its source, and our names of its classes where they differ.

    Only the logits of `classes` compete; None for those that it has images of.
    """

    class_map: Mapping[str, str] = Field(default_factory=dict)
    classes: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None

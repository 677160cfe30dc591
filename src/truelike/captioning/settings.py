"""The section `caption` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from truelike.paths import NAIVE, TRAIN
from truelike.runtime.settings import Count, Positive, Section, Seed, Text


class Rewrite(Section):
    """Rewrites of each caption by ``models.rewriter``; a synthetic image's replica chooses among
    them.
    """

    count: Count
    instruction: str
    max_tokens: Positive
    seed: Seed

    @field_validator("instruction")
    @classmethod
    def _uses_caption(cls, instruction: str) -> str:
        if "{caption}" not in instruction:
            raise ValueError(f"must contain {{caption}}, found {instruction!r}")
        return instruction


class Caption(Section):
    """How captions are made: by ``models.captioner``, read from the table that it names, or not at
    all.

    `images` are the real training images, or a replica of naive ones that each give the real image
    they were made for its caption (CiP without real images). `instruction` is told to the
    captioner, `{class}` the image's class; `contradicting` is what becomes of captions that name
    another class and not their image's own.
    """

    images: Annotated[str, Field(pattern=rf"^({TRAIN}|{NAIVE}/\d+)$")]
    by: Literal["model", "file", "none"]
    instruction: Text | None
    contradicting: Literal["keep", "drop", "recaption"]
    max_tokens: Positive
    batch_size: Positive
    rewrite: Rewrite

    @model_validator(mode="after")
    def _has_captions(self) -> "Caption":
        if self.by != "model" and self.images != str(TRAIN):
            raise ValueError(f"by {self.by!r} does not look at images: set images to {TRAIN}")
        if self.by == "none" and self.rewrite.count:
            raise ValueError(
                "by 'none' leaves nothing to rewrite: set rewrite.count to 0, found "
                f"{self.rewrite.count}"
            )
        if self.by != "model" and self.instruction:
            raise ValueError(f"by {self.by!r} asks no captioner: set instruction to null")
        if self.by == "file" and self.contradicting == "recaption":
            raise ValueError("by 'file' asks no captioner: set contradicting to 'keep' or 'drop'")
        if self.contradicting == "recaption" and "{class}" in (self.instruction or ""):
            raise ValueError(
                "contradicting 'recaption' tells the captioner the class, which instruction does "
                "from the beginning: take {class} out of it, or set contradicting to 'keep' or "
                "'drop'"
            )
        return self

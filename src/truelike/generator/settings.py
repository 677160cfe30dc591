"""The sections `prompts` and `visual_guidance` of params.yaml."""

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from truelike.runtime.settings import Positive, Section, Seed


class Prompts(Section):
    """The pieces of a prompt, joined in this order; a piece is used only where its material exists.

    `base` is a template or a list of them, of which each image draws one. A synthetic image has
    the caption of its own real image, or draws one of its class's or of the whole set's: `context`.
    """

    base: str | tuple[str, ...]
    definitions: Mapping[str, str]
    caption: str
    style: str
    quality: str
    negative: str
    context: Literal["own", "class", "set"]
    seed: Seed

    @property
    def templates(self) -> tuple[str, ...]:
        return (self.base,) if isinstance(self.base, str) else self.base

    @model_validator(mode="after")
    def _placeholders(self) -> "Prompts":
        pieces = [("base", "{class}", template) for template in self.templates]
        pieces += [("caption", "{caption}", self.caption), ("style", "{style}", self.style)]
        for name, needed, piece in pieces:
            if piece and needed not in piece:
                raise ValueError(f"prompts.{name} must contain {needed}, found {piece!r}")
        if not self.base or "" in self.templates:
            raise ValueError("prompts.base must not be empty")
        return self


class VisualGuidance(Section):
    """What replaces the last text state (RF): nothing, the image's own embedding, or its class's
    mean or centroids.
    """

    kind: Literal["off", "image", "class_mean", "class_kmeans"]
    centroids: Positive


SamplerName = Literal["unipc", "dpm++2m", "ddim", "ddim-trailing", "euler", "euler-trailing", "lcm"]

"""The sections `invert` and `adapt` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from truelike.runtime.settings import (
    Fraction,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Section,
    Seed,
    Text,
)


class Invert(Section):
    """Dataset style inversion (BT): one new token for the whole data set, or one for each class as
    the baseline.
    """

    enabled: bool
    scope: Literal["set", "class"]
    token: Annotated[str, Field(pattern=r"^\S+$")]
    initializer: Text
    tokens_per_style: Positive
    template: str
    steps: Positive
    batch_size: Positive
    lr: Rate
    weight_decay: NonNegative
    choose: Literal["last", "best"]
    checkpoint_every: Positive
    seed: Seed

    @field_validator("template")
    @classmethod
    def _uses_token(cls, template: str) -> str:
        if "{class}" not in template or "{style}" not in template:
            raise ValueError(f"must contain {{class}} and {{style}}, found {template!r}")
        return template


class DistributionMatching(Section):
    """The squared-MMD term of RF: lambda, the kernel, and how the batch is reduced, timed and
    grouped.
    """

    weight: NonNegative
    kernel: Literal["linear", "rbf"]
    reduction: Literal["sum", "mean"]
    timesteps: Literal["per_sample", "shared"]
    groups: Literal["batch", "class"]


class Adapt(Section):
    """LoRA: one adapter for the whole set, or one for each class, the steps divided over the
    classes.

    `micro_batch_size` images go through the denoiser at once, all of a batch if None.
    """

    enabled: bool
    scope: Literal["set", "class"]
    rank: Positive
    alpha: Positive
    targets: tuple[Literal["q", "k", "v", "out"], ...]
    steps: Positive
    batch_size: Positive
    lr: Rate
    weight_decay: NonNegative
    clip: Rate
    ema_decay: Fraction | None
    min_snr_gamma: Rate | None
    caption_dropout: Probability
    dm: DistributionMatching
    micro_batch_size: Positive | None
    gradient_checkpointing: Literal["auto", "on", "off"]
    choose: Literal["last", "best"]
    preview_every: Positive | None
    checkpoint_every: Positive
    seed: Seed

    @field_validator("targets")
    @classmethod
    def _some_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not targets or len(set(targets)) != len(targets):
            raise ValueError(
                "must be a list of distinct projections such as [q, k, v, out], found "
                f"{list(targets)}"
            )
        return targets

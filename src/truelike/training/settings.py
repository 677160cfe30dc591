"""The section `train` of params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from truelike.runtime.settings import (
    NAME,
    DistinctSeeds,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Section,
)


class Phase(Section):
    """One stretch of training on the real images, on the partner set, or on both."""

    on: Literal["real", "partner", "real+partner"]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    lr_scale: Rate = 1.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    joint: tuple[NonNegative, NonNegative] | None = None
    soft_labels: Probability = 0.0
    proxy_guidance: NonNegative = 0.0
    reset_head: bool = False

    @model_validator(mode="after")
    def _partner_is_there(self) -> "Phase":
        if self.joint and self.on != "real+partner":
            raise ValueError(
                "joint weighs a real and a partner batch, so it needs on: real+partner, found "
                f"{self.on}"
            )
        if self.soft_labels and self.on == "real":
            raise ValueError(
                "soft_labels are of partner images, so it needs on: partner or on: real+partner"
            )
        return self


class Arm(Section):
    """A way to use a partner set beside the real images: phases whose shares of the optimizer steps
    add up to 1.

    Of the partner it uses the first `replicas`, None for all, and of these what `select` kept, or
    everything.
    """

    partner: Annotated[str, Field(pattern=rf"^(synthetic|naive|extra|(partial|rounds)/{NAME})$")]
    replicas: Positive | None = None
    selected: bool = True
    phases: tuple[Phase, ...]

    @model_validator(mode="after")
    def _shares(self) -> "Arm":
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of an arm's phases must add up to 1, found {total:g}")
        return self

    @property
    def uses_partner(self) -> bool:
        return any(phase.on != "real" for phase in self.phases)


class Optimization(Section):
    """How one network is trained, whatever its images are."""

    pretrained: bool
    resolution: Positive | None
    streaming: bool
    steps: Positive
    batch_size: Annotated[int, Field(ge=2)]  # batch normalisation has no variance of one image
    optimizer: Literal["adamw", "sgd"]
    lr: Rate
    schedule: Literal["cosine", "steps"]
    weight_decay: NonNegative
    label_smoothing: Probability
    warmup_fraction: Probability
    warmup_lr: NonNegative
    crop_scale: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    color_jitter: Probability
    sampling: Literal["uniform", "balanced"]
    dtype: Literal["float32", "bfloat16", "float16"]
    ema_decay: Fraction | None
    deterministic: bool
    log_every: Positive
    divide: Literal["seeds", "batch"]
    sync_batch_norm: bool
    compile: bool


class Train(Optimization):
    """How the networks of all arms are trained."""

    checkpoint_every: Positive
    keep: Literal["best", "all", "none"]
    seeds: DistinctSeeds
    arms: Mapping[Name, Arm]

    @property
    def optimization(self) -> Optimization:
        return Optimization.model_validate(self.model_dump(include=set(Optimization.model_fields)))

    @field_validator("arms")
    @classmethod
    def _has_reference(cls, arms: Mapping[str, Arm]) -> Mapping[str, Arm]:
        if "real" not in arms:
            raise ValueError("must contain the arm 'real', which every other arm is compared with")
        return arms

    @model_validator(mode="after")
    def _batches_are_divided(self) -> "Train":
        if self.sync_batch_norm and self.divide != "batch":
            raise ValueError("sync_batch_norm is true, which needs divide: batch")
        return self

    @model_validator(mode="after")
    def _phases_are_possible(self) -> "Train":
        for name, arm in self.arms.items():
            if not self.pretrained and any(phase.proxy_guidance for phase in arm.phases):
                raise ValueError(
                    f"the arm {name} has proxy_guidance, which needs train.pretrained: true"
                )
            if self.divide == "batch" and any(phase.proxy_guidance for phase in arm.phases):
                raise ValueError(
                    f"the arm {name} has proxy_guidance, which needs train.divide: seeds"
                )
        return self

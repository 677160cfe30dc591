"""The settings: one strict, frozen model per section of params.yaml, and the only reader of that file."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from truelike.errors import TruelikeError

PARAMS_FILE = "params.yaml"

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


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


SetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Models(Section):
    """Each a directory in the hub's layout, or a YAML file that names a hub model and its revision.

    `captioner` may also be a parquet or csv table of captions, for ``caption.by: file``; `rewriter` is opened only
    where ``caption.rewrite.count`` asks for rewrites.
    """

    generator: str
    encoder: str
    captioner: str
    rewriter: str
    classifier: str
    dtype: Literal["float32", "bfloat16", "float16"]


class Prompts(Section):
    """The pieces of a prompt, joined in this order; a piece is used only where its material exists.

    `base` is a template or a list of them, of which each image draws one.
    """

    base: str | tuple[str, ...]
    definitions: Mapping[str, str]
    caption: str
    style: str
    quality: str
    negative: str
    seed: Count

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


class Rewrite(Section):
    """Rewrites of each caption by ``models.rewriter``; a synthetic image's replica chooses among them."""

    count: Count
    instruction: str
    max_tokens: Positive
    seed: Count

    @field_validator("instruction")
    @classmethod
    def _uses_caption(cls, instruction: str) -> str:
        if "{caption}" not in instruction:
            raise ValueError(f"must contain {{caption}}, found {instruction!r}")
        return instruction


class Caption(Section):
    """How captions are made: by ``models.captioner``, read from the table that it names, or not at all.

    `images` are the real training images, or a replica of naive ones that each give the real image they were made for
    its caption (CiP without real images).
    """

    images: Annotated[str, Field(pattern=r"^outputs/(real/train|naive/\d+)$")]
    by: Literal["model", "file", "none"]
    max_tokens: Positive
    batch_size: Positive
    rewrite: Rewrite

    @model_validator(mode="after")
    def _has_captions(self) -> "Caption":
        if self.by != "model" and self.images != "outputs/real/train":
            raise ValueError(f"by {self.by!r} does not look at images: set images to outputs/real/train")
        if self.by == "none" and self.rewrite.count:
            raise ValueError(f"by 'none' leaves nothing to rewrite: set rewrite.count to 0, found {self.rewrite.count}")
        return self


class Embed(Section):
    batch_size: Positive


class VisualGuidance(Section):
    """What replaces the last text state (RF): nothing, the image's own embedding, or its class's mean or centroids."""

    kind: Literal["off", "image", "class_mean", "class_kmeans"]
    centroids: Positive


class Invert(Section):
    """Dataset style inversion (BT): one new token for the whole data set, or one for each class as the baseline."""

    enabled: bool
    scope: Literal["set", "class"]
    token: str
    initializer: str
    tokens_per_style: Positive
    template: str
    steps: Positive
    batch_size: Positive
    lr: Rate
    weight_decay: NonNegative
    choose: Literal["last", "best"]
    checkpoint_every: Positive
    seed: Count

    @field_validator("template")
    @classmethod
    def _uses_token(cls, template: str) -> str:
        if "{class}" not in template or "{style}" not in template:
            raise ValueError(f"must contain {{class}} and {{style}}, found {template!r}")
        return template


class DistributionMatching(Section):
    """The squared-MMD term of RF: lambda, the kernel, and how the batch is reduced, timed and grouped."""

    weight: NonNegative
    kernel: Literal["linear", "rbf"]
    reduction: Literal["sum", "mean"]
    timesteps: Literal["per_sample", "shared"]
    groups: Literal["batch", "class"]


class Adapt(Section):
    """LoRA: one adapter for the whole set, or one for each class, the steps divided over the classes."""

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
    checkpoint_every: Positive
    seed: Count

    @field_validator("targets")
    @classmethod
    def _some_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not targets or len(set(targets)) != len(targets):
            raise ValueError(f"must be a list of distinct projections such as [q, k, v, out], found {list(targets)}")
        return targets


SamplerName = Literal["unipc", "dpm++2m", "ddim", "euler", "lcm"]


class Naive(Section):
    """The yardstick: plain text-to-image from class prompts, nothing learned from the real images."""

    sampler: SamplerName
    steps: Positive
    guidance_scale: NonNegative
    batch_size: Positive
    shard_size: Positive
    seed: Count


class Synthesize(Section):
    replicas: tuple[Count, ...]
    sampler: SamplerName
    steps: Positive
    guidance_scale: NonNegative
    guidance_interval: tuple[Probability, Probability]
    strength: Annotated[float, Field(gt=0, le=1)]
    lora_scale: Annotated[float, Field(ge=0, le=2)]
    batch_size: Positive
    shard_size: Positive
    seed: Count

    @field_validator("replicas")
    @classmethod
    def _distinct(cls, replicas: tuple[int, ...]) -> tuple[int, ...]:
        if not replicas or len(set(replicas)) != len(replicas):
            raise ValueError(f"must be a list of distinct numbers such as [0, 1, 2], found {list(replicas)}")
        return replicas

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError(
                f"must be two rising fractions of the noise levels such as [0.0, 1.0], found {list(interval)}"
            )
        return interval


class Select(Section):
    sets: tuple[Literal["synthetic", "naive"], ...]
    min_class_probability: Probability
    drop_near_copies: bool
    relabel: bool
    classifier_steps: Positive
    seed: Count


Piece = Literal["caption", "style", "adapter", "prior"]


class PartialSet(Section):
    """One replica of synthetic images without some of what `synthesize` uses; the rest as there."""

    without: tuple[Piece, ...]

    @model_validator(mode="after")
    def _adapter_keeps_its_style(self) -> "PartialSet":
        if "style" in self.without and "adapter" not in self.without:
            raise ValueError("the adapter was trained with the style: without style there can be no adapter either")
        return self


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
            raise ValueError(f"joint weighs a real and a partner batch, so it needs on: real+partner, found {self.on}")
        if self.soft_labels and self.on == "real":
            raise ValueError("soft_labels are of partner images, so it needs on: partner or on: real+partner")
        return self


class Arm(Section):
    """A way to use a partner set beside the real images: phases whose shares of the optimizer steps add up to 1.

    Of the partner it uses the first `replicas`, None for all, and of these what `select` kept, or everything.
    """

    partner: Annotated[str, Field(pattern=r"^(synthetic|naive|extra|partial/[a-z0-9][a-z0-9_-]*)$")]
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


class Train(Section):
    pretrained: bool
    steps: Positive
    batch_size: Positive
    optimizer: Literal["adamw", "sgd"]
    lr: Rate
    schedule: Literal["cosine", "steps"]
    weight_decay: NonNegative
    label_smoothing: Probability
    warmup_fraction: Probability
    crop_scale: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    checkpoint_every: Positive
    seeds: tuple[Count, ...]
    arms: Mapping[str, Arm]

    @field_validator("arms")
    @classmethod
    def _has_reference(cls, arms: Mapping[str, Arm]) -> Mapping[str, Arm]:
        if "real" not in arms:
            raise ValueError("must contain the arm 'real', which every other arm is compared with")
        return arms

    @model_validator(mode="after")
    def _phases_are_possible(self) -> "Train":
        for name, arm in self.arms.items():
            if not self.pretrained and any(phase.proxy_guidance for phase in arm.phases):
                raise ValueError(f"the arm {name} has proxy_guidance, which needs train.pretrained: true")
            if self.batch_size < 2 and any(phase.joint for phase in arm.phases):
                raise ValueError(f"the arm {name} has joint, which needs train.batch_size of 2 or more")
        return self


class Evaluate(Section):
    confidence: Fraction
    bootstrap: Positive
    seed: Count


class Gates(Section):
    """Limits whose breach fails the pipeline after the report is written; None for none."""

    max_near_copy_rate: Probability | None
    max_tpr: Probability | None
    min_coverage: Probability | None
    min_gain: float | None


class Audit(Section):
    neighbours: Positive
    batch_size: Positive
    bootstrap: Positive
    seed: Count
    gates: Gates


class Privacy(Section):
    """Membership inference by shadows of the pipeline, each on a half of the real training images; none: not measured.

    The shadows 2j and 2j + 1 are trained on complementary halves.
    """

    shadows: tuple[Count, ...]
    arms: tuple[str, ...]
    bootstrap: Positive
    seed: Count

    @field_validator("shadows")
    @classmethod
    def _pairs(cls, shadows: tuple[int, ...]) -> tuple[int, ...]:
        pairs = {number // 2 for number in shadows}
        if shadows and (len(pairs) < 3 or set(shadows) != {2 * j + side for j in pairs for side in (0, 1)}):
            raise ValueError(f"must be [] or three pairs and more such as [0, 1, 2, 3, 4, 5], found {list(shadows)}")
        return shadows


class Rung(Section):
    """An arm that learns from images of one kind alone, and the gap that is closed from the rung before to this one."""

    arm: str
    closes: Literal["content", "appearance", "label", "quantity"] | None = None


class Report(Section):
    title: str
    pictures_per_class: Positive
    waterfall: tuple[Rung, ...]


class Params(Section):
    data: Data
    corrupt: Corrupt
    ood: Mapping[SetName, OodSet]
    models: Models
    prompts: Prompts
    caption: Caption
    embed: Embed
    visual_guidance: VisualGuidance
    invert: Invert
    adapt: Adapt
    naive: Naive
    synthesize: Synthesize
    partial: Mapping[SetName, PartialSet]
    select: Select
    train: Train
    evaluate: Evaluate
    audit: Audit
    privacy: Privacy
    report: Report

    @field_validator("ood")
    @classmethod
    def _free_names(cls, ood: Mapping[str, OodSet]) -> Mapping[str, OodSet]:
        taken = {"corrupted", *get_args(CorruptionName)}
        if found := sorted(taken & set(ood)):
            raise ValueError(f"{found[0]!r} is a name of corrupted images; give the set another")
        return ood

    @model_validator(mode="after")
    def _style_is_used(self) -> "Params":
        if self.invert.enabled and not self.prompts.style:
            raise ValueError(
                "invert.enabled is true but prompts.style is empty, so no prompt would use the learned style: "
                "set prompts.style or turn invert off"
            )
        return self

    @model_validator(mode="after")
    def _partners_are_made(self) -> "Params":
        for name, arm in self.train.arms.items():
            kind, _, own = arm.partner.partition("/")
            if kind == "partial" and own not in self.partial:
                raise ValueError(f"train.arms.{name}: there is no {own!r} in partial, choose from {list(self.partial)}")
        return self

    @model_validator(mode="after")
    def _attacked_arms_are_made_by_a_shadow(self) -> "Params":
        arms = self.train.arms
        known = [name for name, arm in arms.items() if arm.partner == "synthetic" or not arm.uses_partner]
        if unknown := [name for name in self.privacy.arms if self.privacy.shadows and name not in known]:
            raise ValueError(
                f"privacy.arms: {unknown[0]!r} is no arm of train.arms on real or synthetic images, choose from {known}"
            )
        return self


def read_yaml(path: str | Path) -> Any:
    """Read a YAML 1.2 file, as DVC does (``on`` is a word and ``5e-5`` a number); raises TruelikeError."""
    try:
        return YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TruelikeError(f"{path}: no such file; run from the directory that holds it") from None
    except YAMLError as error:
        raise TruelikeError(f"{path}: not valid YAML: {error}") from None


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml; raises TruelikeError that lists every wrong or unknown parameter."""
    return parse_params(read_yaml(path), str(path))


def parse_params(raw: Any, name: str = PARAMS_FILE) -> Params:
    """Check a nested mapping of parameters; `name` is the file the errors speak of."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise TruelikeError("\n".join(f"{name}: {line}" for line in _explain(error))) from None


def _explain(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
            yield f"unknown parameter '{place}'; {hint}"
        elif item["type"] == "missing":
            yield f"parameter '{place}' is missing"
        elif item["type"] == "value_error" and not place:
            yield item["msg"].removeprefix("Value error, ")
        else:
            message = item["msg"].removeprefix("Value error, ")
            found = "" if isinstance(item["input"], dict) else f", found {item['input']!r}"
            yield f"{place}: {message}{found}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    entries: dict[int | str, type[BaseModel]] = {
        "arms": Arm,
        "phases": Phase,
        "ood": OodSet,
        "partial": PartialSet,
        "waterfall": Rung,
    }
    model: type[BaseModel] = Params
    for part in location:
        if part in entries:
            model = entries[part]
        elif isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
    return list(model.model_fields)

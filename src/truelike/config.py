"""The settings: one strict, frozen model per section of params.yaml, and the only reader of that
file.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError, field_validator, model_validator

from truelike.adaptation.settings import Adapt, Invert
from truelike.audit.settings import Audit
from truelike.captioning.settings import Caption
from truelike.evaluation.settings import Evaluate
from truelike.features.settings import Embed
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.paths import NAIVE
from truelike.privacy.settings import Privacy
from truelike.reporting.settings import Report, Rung
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model
from truelike.runtime.settings import Name, Section, Text
from truelike.runtime.yaml import read_yaml
from truelike.selection.settings import Select
from truelike.sources.settings import Corrupt, CorruptionName, Data, OodSet, Splits
from truelike.synthesis.settings import Naive, PartialSet, Round, Synthesize
from truelike.training.settings import Arm, Phase, Train

PARAMS_FILE = "params.yaml"
SHAPES = {  # what is wrong, by pydantic's type of error, in the words of YAML
    "tuple_type": "must be a list such as [a, b]",
    "dict_type": "must be a mapping such as {NAME: ...}, {} for none",
    "model_type": "must be a section with parameters below it",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


class Models(Section):
    """Each a directory in the hub's layout, or a YAML file that names a hub model and its revision.

    `accelerator` is a safetensors file, a YAML file that names one on the hub, or an empty one.
    `captioner` may also be a table of captions, for ``caption.by: file``; `rewriter`
    is opened only where ``caption.rewrite.count`` asks for rewrites.
    """

    generator: Text
    accelerator: Text
    encoder: Text
    captioner: Text
    rewriter: Text
    classifier: Text
    dtype: Literal["float32", "bfloat16", "float16"]
    compile: bool


class Params(Section):
    data: Data
    corrupt: Corrupt
    ood: Mapping[Name, OodSet]
    models: Models
    prompts: Prompts
    caption: Caption
    embed: Embed
    visual_guidance: VisualGuidance
    invert: Invert
    adapt: Adapt
    naive: Naive
    synthesize: Synthesize
    partial: Mapping[Name, PartialSet]
    rounds: Mapping[Name, Round]
    select: Select
    train: Train
    evaluate: Evaluate
    audit: Audit
    privacy: Privacy
    report: Report

    @property
    def generator(self) -> Model:
        return Model(self.models.generator, self.models.dtype, compile=self.models.compile)

    @property
    def accelerated(self) -> Model:
        """The generator as images are sampled from it."""
        return replace(self.generator, accelerator=self.models.accelerator)

    @property
    def encoder(self) -> Model:
        return Model(self.models.encoder, self.models.dtype)

    @property
    def captioner(self) -> Model:
        return Model(self.models.captioner, self.models.dtype)

    @property
    def rewriter(self) -> Model:
        return Model(self.models.rewriter, self.models.dtype)

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
                "invert.enabled is true but prompts.style is empty, so no prompt would use the "
                "learned style: "
                "set prompts.style or turn invert off"
            )
        return self

    @model_validator(mode="after")
    def _partners_are_made(self) -> "Params":
        for name, arm in self.train.arms.items():
            kind, _, own = arm.partner.partition("/")
            sets = {"partial": self.partial, "rounds": self.rounds}.get(kind)
            if sets is not None and own not in sets:
                raise ValueError(
                    f"train.arms.{name}: there is no {own!r} in {kind}, choose from {list(sets)}"
                )
        return self

    @model_validator(mode="after")
    def _rounds_follow_arms(self) -> "Params":
        replicas = list(self.synthesize.replicas)
        for name, own in self.rounds.items():
            before = own.adds_to.removeprefix("rounds/")
            if own.after not in self.train.arms:
                known = list(self.train.arms)
                raise ValueError(f"rounds.{name}.after: no arm {own.after!r}, choose from {known}")
            if before != "synthetic" and (before not in self.rounds or before == name):
                raise ValueError(f"rounds.{name}.adds_to: no other round {before!r}")
            if own.replica in replicas:
                raise ValueError(
                    f"rounds.{name}.replica: {own.replica} is made already, by synthesize or "
                    "another round; choose another number"
                )
            replicas.append(own.replica)
        return self

    @model_validator(mode="after")
    def _captions_are_of_images_that_are_made(self) -> "Params":
        folder = Path(self.caption.images)
        if folder.parent == NAIVE and int(folder.name) not in self.synthesize.replicas:
            raise ValueError(
                f"caption.images: {folder} is not made, for synthesize.replicas is "
                f"{list(self.synthesize.replicas)}; name one of these"
            )
        return self

    @model_validator(mode="after")
    def _feedback_leaks_nothing(self) -> "Params":
        feedback = self.synthesize.feedback
        asked = {
            f"rounds.{name}.after": own.after
            for name, own in self.rounds.items()
            if own.allocation == "uncertain" or own.criterion != "off"
        }
        if feedback.arm:
            asked["synthesize.feedback.network"] = feedback.arm
        for where, name in asked.items():
            arm = self.train.arms.get(name)
            if arm is None:
                raise ValueError(f"{where}: no arm {name!r}, choose from {list(self.train.arms)}")
            if arm.partner == "extra" and arm.uses_partner:
                raise ValueError(
                    f"{where}: the arm {name!r} trains on real images beyond data.shots, and no "
                    "image may be made with their help: name another arm"
                )
        if asked and self.train.keep != "all":
            raise ValueError(
                f"{next(iter(asked))}: needs train.keep 'all', found {self.train.keep!r}: 'best' "
                "keeps the network that validation images choose, and no image may be made with "
                "their help; 'none' keeps none"
            )
        if feedback.is_on and self.privacy.shadows:
            raise ValueError(
                "synthesize.feedback: its network has seen the images that the shadows of "
                "privacy.shadows must not know: turn one of them off"
            )
        return self

    @model_validator(mode="after")
    def _attacked_arms_are_made_by_a_shadow(self) -> "Params":
        if self.privacy.shadows and not self.privacy.arms:
            raise ValueError("privacy.arms: there are shadows but no arm to attack; name one")
        arms = self.train.arms
        known = [
            name for name, arm in arms.items() if arm.partner == "synthetic" or not arm.uses_partner
        ]
        if unknown := [
            name for name in self.privacy.arms if self.privacy.shadows and name not in known
        ]:
            raise ValueError(
                f"privacy.arms: {unknown[0]!r} is no arm of train.arms on real or synthetic "
                f"images, choose from {known}"
            )
        return self


def check_files(params: Params) -> None:
    """Raise TruelikeError that lists the sources and models that `params` names but that are not
    there.
    """
    named = {
        f"models.{role}": path
        for role, path in params.models
        if isinstance(path, str) and role != "dtype"
    }
    named |= {f"ood.{name}.source": ood.source for name, ood in params.ood.items()}
    named["data.source"] = params.data.source
    if lines := [
        f"{name}: no such file or directory: {path}"
        for name, path in named.items()
        if not Path(path).exists()
    ]:
        raise TruelikeError("\n".join(lines))


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml; raises TruelikeError that lists every wrong or unknown
    parameter.
    """
    return parse_params(read_yaml(path), str(path))


def parse_params(raw: Any, name: str = PARAMS_FILE) -> Params:
    """Check a nested mapping of parameters; `name` is the file the errors speak of."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise TruelikeError("\n".join(f"{name}: {line}" for line in _explain(error))) from None


def _explain(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if part != "[key]")
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
            message = SHAPES.get(item["type"], item["msg"].removeprefix("Value error, "))
            found = f", found {item['input']!r}"
            said = isinstance(item["input"], dict) or ", found " in message or "; found " in message
            yield f"{place}: {message}{'' if said else found}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    entries: dict[int | str, type[BaseModel]] = {
        "arms": Arm,
        "phases": Phase,
        "ood": OodSet,
        "splits": Splits,
        "partial": PartialSet,
        "rounds": Round,
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

"""What can be said of a generator before its weights are downloaded or anything is trained: whether
the settings fit its configuration and its tokenizer.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import transformers

from truelike.adaptation.inversion import class_styles
from truelike.adaptation.settings import Invert
from truelike.generator.families import FAMILIES
from truelike.generator.family import Family
from truelike.generator.generator import check_size
from truelike.generator.guidance import check_guidance
from truelike.generator.latents import vae_factor
from truelike.generator.prompts import PromptReader, inversion_prompt, training_prompt
from truelike.generator.samplers import check_sampler
from truelike.generator.settings import Prompts
from truelike.runtime.devices import check_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, find_file, names_nothing, resolve_configuration
from truelike.synthesis.jobs import Parameters

CAPTION = "x"  # the shortest


@dataclass(frozen=True)
class Configuration:
    """A generator's small files: its class, its parts' settings, what cuts its prompts."""

    name: str
    family: Family
    parts: dict[str, dict[str, Any]]
    reader: PromptReader

    @classmethod
    def read(cls, model: Model) -> "Configuration":
        """Read them, without weights; raises TruelikeError for a pipeline of an unknown family."""
        folder = resolve_configuration(model.path, "model_index.json")
        index = json.loads((folder / "model_index.json").read_text())
        name = index["_class_name"]
        if name not in FAMILIES:
            raise TruelikeError(
                f"models.generator: {model.path} holds a {name}, expected one of "
                f"{', '.join(FAMILIES)}"
            )
        family = FAMILIES[name]
        kind = getattr(transformers, index[family.tokenizer][1])
        tokenizer = kind.from_pretrained(folder / family.tokenizer)
        parts = {part: _settings(folder / part) for part in ("vae", family.denoiser, "scheduler")}
        return cls(name, family, parts, PromptReader.of(family, tokenizer))


def _settings(folder: Path) -> dict[str, Any]:
    """The content of a part's configuration file."""
    name = "scheduler_config.json" if folder.name == "scheduler" else "config.json"
    settings: dict[str, Any] = json.loads((folder / name).read_text())
    return settings


class CheckedParameters(Parameters, Protocol):
    """The parameters that are checked."""

    @property
    def invert(self) -> Invert: ...
    @property
    def encoder(self) -> Model: ...


def check_generator(
    params: CheckedParameters, class_names: Sequence[str], size: tuple[int, int]
) -> None:
    """Raise TruelikeError for the first setting that does not fit the generator.

    Looked at are the type and the device, the accelerator's file, the family, the images' `size`
    (height, width) in pixels, samplers, visual guidance, and the lengths of prompts for each class.
    """
    model = params.accelerated
    check_dtype(model.dtype)
    if model.accelerator is not None and not names_nothing(model.accelerator):
        find_file(Path(model.accelerator))
    generator = Configuration.read(model)
    family, scheduler = generator.family, generator.parts["scheduler"]
    vae, denoiser = generator.parts["vae"], generator.parts[family.denoiser]
    patch = family.patch or denoiser.get("patch_size", 1)
    check_size(*size, family.fold * vae_factor(vae), patch)
    for section, settings in (("naive", params.naive), ("synthesize", params.synthesize)):
        check_sampler(settings.sampler, scheduler["_class_name"], scheduler, section)
    if params.invert.enabled and not family.encoders:
        raise TruelikeError(
            f"invert.enabled: a {generator.name} cannot learn a style, there is no textual "
            "inversion for it; set invert.enabled to false"
        )
    if params.visual_guidance.kind != "off":
        folder = resolve_configuration(params.encoder.path)
        width = json.loads((folder / "config.json").read_text())["projection_dim"]
        expected = denoiser.get("cross_attention_dim")
        check_guidance(family, generator.name, expected, width, params.visual_guidance)
    check_prompts(generator.reader, params.prompts, params.invert, class_names)


def check_prompts(
    reader: PromptReader, prompts: Prompts, invert: Invert, class_names: Sequence[str]
) -> None:
    """Raise TruelikeError unless class, style and the beginning of a caption are within the limit
    of the tokenizer, in every template, for every class.

    A caption that is longer than what is left is cut, which the stages warn of.
    """
    tokenizer = copy.deepcopy(reader.tokenizer)
    styles = class_styles(invert, class_names) if invert.enabled else {}
    new = {token for style in styles.values() for token in style} - set(tokenizer.get_vocab())
    tokenizer.add_tokens(sorted(new))
    reader = replace(reader, tokenizer=tokenizer)
    for name in class_names:
        style = " ".join(styles.get(name, ()))
        caption = CAPTION if prompts.caption else ""
        for template in prompts.templates:
            one = prompts.model_copy(update={"base": template})
            _check_length(reader, "prompts", training_prompt(one, "", name, caption, style))
        if invert.enabled:
            text = inversion_prompt(invert.template, name, style)
            _check_length(reader, "invert.template", text)


def _check_length(reader: PromptReader, where: str, prompt: str) -> None:
    length, limit = reader.length(prompt), reader.limit
    if length > limit:
        raise TruelikeError(
            f"{where}: {prompt!r} has {length} tokens and the generator's tokenizer cuts after "
            f"{limit}, so that not all of class, style and caption would be read; shorten it, or "
            "the class's name or definition"
        )

"""Prompts: the pieces of the `prompts` section, joined where their material exists."""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from truelike.generator.family import Family, as_it_is
from truelike.generator.settings import Prompts
from truelike.runtime.errors import TruelikeError

TRAINING_PIECES = ("base", "definitions", "caption", "style", "seed")  # what decides such a prompt


@dataclass(frozen=True)
class PromptReader:
    """What cuts a prompt: a tokenizer, after `limit` tokens of the text `written` around it."""

    tokenizer: Any
    limit: int
    written: Callable[[Any, str], str] = as_it_is

    @classmethod
    def of(cls, family: Family, tokenizer: Any) -> "PromptReader":
        """That of a family, whose cutting tokenizer this is."""
        return cls(tokenizer, family.limit or tokenizer.model_max_length, family.written)

    def length(self, prompt: str) -> int:
        """How many tokens a prompt has, with all that is written around it."""
        text = self.written(self.tokenizer, prompt)
        return len(self.tokenizer(text, truncation=False, verbose=False).input_ids)


def base_prompt(prompts: Prompts, key: str, class_name: str) -> str:
    """Fill the base template, of several the one that image `key` draws: the same whichever other
    images there are.

    Raises TruelikeError for a class without the definition that the template asks for.
    """
    digest = hashlib.sha256(f"{prompts.seed}/{key}".encode()).digest()
    template = prompts.templates[int.from_bytes(digest[:8], "big") % len(prompts.templates)]
    if "{definition}" in template and class_name not in prompts.definitions:
        raise TruelikeError(
            f"prompts.definitions: none for the class {class_name!r}, and prompts.base asks for "
            f"it: {template!r}; "
            f"add it (defined: {', '.join(map(repr, prompts.definitions)) or 'nothing'})"
        )
    pieces = {"class": class_name, "definition": prompts.definitions.get(class_name, "")}
    return re.sub(r"\{(class|definition)\}", lambda found: pieces[found[1]], template)


def training_prompt(prompts: Prompts, key: str, class_name: str, caption: str, style: str) -> str:
    """Join base, caption and style; a piece is left out when its caption or style is an empty
    string.

    `key` is the image's and draws among several bases (BT). CiP: ``a photo of {class}, {caption}``;
    BT: ``... in the style of S*``.
    """
    text = base_prompt(prompts, key, class_name)
    if caption:
        text += prompts.caption.replace("{caption}", caption)
    if style:
        text += prompts.style.replace("{style}", style)
    return text


def sampling_prompt(prompts: Prompts, key: str, class_name: str, caption: str, style: str) -> str:
    """The training prompt and the quality piece (RF: ``, best quality``)."""
    return training_prompt(prompts, key, class_name, caption, style) + prompts.quality


def training_prompts(
    reader: PromptReader,
    prompts: Prompts,
    keys: Sequence[str],
    class_names: Sequence[str],
    captions: Sequence[str],
    styles: Sequence[str],
) -> list[str]:
    """The training prompt of every image; says on stderr how many are cut."""
    rows = zip(keys, class_names, captions, styles, strict=True)
    texts = [training_prompt(prompts, *row) for row in rows]
    truncated(reader, texts)
    return texts


def inversion_prompt(template: str, class_name: str, style: str) -> str:
    """Fill the template that style inversion learns with."""
    return template.replace("{style}", style).replace("{class}", class_name)


def truncated(reader: PromptReader, prompts: Sequence[str]) -> list[bool]:
    """Whether each prompt is longer than the limit; says on stderr how many are."""
    limit = reader.limit
    lengths = {prompt: reader.length(prompt) for prompt in set(prompts)}
    cut = [lengths[prompt] > limit for prompt in prompts]
    if any(cut):
        example = prompts[cut.index(True)]
        print(
            f"{sum(cut)} of {len(cut)} prompts exceed {limit} tokens and are cut, as {example!r}",
            file=sys.stderr,
        )
    return cut

"""Prompts: the pieces of the `prompts` section, joined where their material exists."""

import sys
from collections.abc import Sequence
from typing import Any

from truelike.config import Prompts


def training_prompt(prompts: Prompts, class_name: str, caption: str, style: str) -> str:
    """Join base, caption and style; a piece is left out when its caption or style is an empty string.

    CiP: ``a photo of {class}, {caption}``; BT: ``... in the style of S*``.
    """
    text = prompts.base.replace("{class}", class_name)
    if caption:
        text += prompts.caption.replace("{caption}", caption)
    if style:
        text += prompts.style.replace("{style}", style)
    return text


def sampling_prompt(prompts: Prompts, class_name: str, caption: str, style: str) -> str:
    """The training prompt and the quality piece (RF: ``, best quality``)."""
    return training_prompt(prompts, class_name, caption, style) + prompts.quality


def training_prompts(
    tokenizer: Any, prompts: Prompts, class_names: Sequence[str], captions: Sequence[str], styles: Sequence[str]
) -> list[str]:
    """The training prompt of every image; says on stderr how many are cut at the tokenizer's limit."""
    materials = zip(class_names, captions, styles, strict=True)
    texts = [training_prompt(prompts, name, caption, style) for name, caption, style in materials]
    truncated(tokenizer, texts)
    return texts


def inversion_prompt(template: str, class_name: str, style: str) -> str:
    """Fill the template that style inversion learns with."""
    return template.replace("{style}", style).replace("{class}", class_name)


def truncated(tokenizer: Any, prompts: Sequence[str]) -> list[bool]:
    """Whether each prompt is longer than the tokenizer's limit; says on stderr how many are."""
    limit = tokenizer.model_max_length
    lengths = {prompt: len(tokenizer(prompt, truncation=False, verbose=False).input_ids) for prompt in set(prompts)}
    cut = [lengths[prompt] > limit for prompt in prompts]
    if any(cut):
        example = prompts[cut.index(True)]
        print(f"{sum(cut)} of {len(cut)} prompts exceed {limit} tokens and are cut, as {example!r}", file=sys.stderr)
    return cut

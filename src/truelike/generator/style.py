"""A learned style: ``style.json``, and the tokens' embeddings as stock diffusers reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import fingerprint, write_once
from truelike.runtime.settings import Section

STYLE_FILE, EMBEDS_FILE = "style.json", "learned_embeds.safetensors"


class Style(Section):
    """The content of ``style.json``: the learned tokens, and a fingerprint of their embeddings.

    `classes` are each class's own tokens, where every class has a style.
    """

    enabled: bool
    token: str = ""
    tokens: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] | None = None
    fingerprint: str = ""

    def text(self, class_name: str) -> str:
        """What stands for the style in a prompt of a class: every learned token, or the class's
        own, or nothing.
        """
        return " ".join(self.tokens if self.classes is None else self.classes[class_name])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")


def read_style(folder: Path | None) -> Style:
    """Read ``style.json``; no folder is no style."""
    if folder is None:
        return Style(enabled=False)
    return Style.model_validate_json((folder / STYLE_FILE).read_text())


def write_style(folder: Path, style: Style, learned: Mapping[str, Tensor] | None) -> list[Path]:
    """Write ``learned_embeds.safetensors``, unless `learned` (tokens, W) per text encoder is None,
    and ``style.json`` with their fingerprint; return the finished files.
    """
    files = []
    if learned is not None:
        embeds = folder / EMBEDS_FILE
        write_once(embeds, lambda path: save_file(pack_embeds(style.tokens, learned), path))
        style = style.model_copy(update={"fingerprint": fingerprint(list(style.tokens), embeds)})
        files.append(embeds)
    write_once(folder / STYLE_FILE, style.save)
    return [folder / STYLE_FILE, *files]


def pack_embeds(tokens: Sequence[str], learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A style's vectors, (tokens, W) per text encoder, as ``load_textual_inversion`` takes them.

    For one text encoder ``{token: vector}``; for several ``{encoder: vectors}``, to be given one by
    one with a token.
    """
    if len(learned) > 1:
        return {name: rows.contiguous().cpu() for name, rows in learned.items()}
    (rows,) = learned.values()
    return {token: row[None].contiguous().cpu() for token, row in zip(tokens, rows, strict=True)}


def read_embeds(
    folder: Path, style: Style, encoders: Mapping[str, tuple[Any, Any]]
) -> dict[str, Tensor]:
    """A style's vectors, (tokens, W) for each of a generator's tokenizers and text encoders.

    Raises TruelikeError if one is missing, or is of another width than its text encoder.
    """
    embeds = load_file(folder / EMBEDS_FILE)
    expected = sorted(encoders if len(encoders) > 1 else style.tokens)
    if sorted(embeds) != expected:
        raise TruelikeError(
            f"{folder / EMBEDS_FILE}: holds {sorted(embeds)}, expected {expected}; "
            "run the stage invert again with this generator"
        )
    if len(encoders) == 1:
        rows = torch.cat([embeds[token] for token in style.tokens])
        embeds = dict.fromkeys(encoders, rows)
    for name, (_, text_encoder) in encoders.items():
        width = text_encoder.get_input_embeddings().weight.shape[1]
        if embeds[name].shape != (len(style.tokens), width):
            raise TruelikeError(
                f"{folder / EMBEDS_FILE}: {style.token!r} has width {embeds[name].shape[-1]}, the "
                f"generator's text encoder has {width}; run the stage invert again with this "
                "generator"
            )
    return embeds


def add_tokens(tokenizer: Any, text_encoder: Any, tokens: Sequence[str]) -> int:
    """Add new words to a tokenizer and its text encoder, all other rows unchanged; return the id of
    the first.

    Raises TruelikeError if one is a word already.
    """
    known = [token for token in tokens if token in tokenizer.get_vocab()]
    if known:
        raise TruelikeError(
            f"invert.token: {known[0]!r} is already a token of the generator; choose another word"
        )
    tokenizer.add_tokens(list(tokens))
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return int(tokenizer.convert_tokens_to_ids(tokens[0]))

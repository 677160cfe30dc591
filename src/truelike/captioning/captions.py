"""Captions of real images, made by a model or read from a file, and their rewrites; an image
without is an error.
"""

import hashlib
import json
import math
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from truelike.captioning.captioner import captions as captions_of
from truelike.captioning.captioner import open_captioner
from truelike.captioning.rewriter import Rewriter, open_rewriter
from truelike.captioning.settings import Rewrite
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_user_table
from truelike.runtime.errors import TruelikeError
from truelike.runtime.executor import Part, Progress, map_parts
from truelike.runtime.hub import Model, resolve
from truelike.runtime.scratch import scratch, scratch_key

REWRITTEN_AT_ONCE = 32  # captions of a part


def caption_images(
    images: ImageSet,
    captioner: Model,
    max_tokens: int,
    batch_size: int,
    instruction: str | None = None,
) -> pd.DataFrame:
    """Caption every image: key, caption, truncated (cut off at `max_tokens`); raises for an empty
    caption.

    The captioner answers or continues the `instruction`, ``{class}`` in it the class of the image.
    The key of a synthetic image's caption is that of the real image it was made for.
    """
    rows = None
    if instruction is not None:
        asked = [instruction.replace("{class}", name) for name in images.index["class_name"]]
        rows = pd.DataFrame({"instructions": asked})
    made = map_images(
        images,
        open_captioner,
        captioner,
        captions_of,
        batch_size,
        "caption",
        rows,
        max_tokens=max_tokens,
    )
    keys = images.index["source_key"].tolist() if "source_key" in images.index else images.keys
    return _checked(keys, made["caption"].tolist(), "models.captioner").assign(
        truncated=made["truncated"]
    )


def no_captions(images: ImageSet) -> pd.DataFrame:
    """An empty caption for every image, for class-only prompts."""
    return pd.DataFrame({"key": images.keys, "caption": "", "truncated": False})


def read_caption_file(images: ImageSet, path: str) -> pd.DataFrame:
    """Captions from a parquet, CSV or JSON lines table: a column `caption` or `text`, and one of
    `key`, `source` or `file_name` (relative to the table's folder).

    Raises TruelikeError if the file or a column is missing, the file is not UTF-8 or broken, if an
    image has no caption or an empty one, or several.
    """
    table = read_user_table(Path(path), "models.captioner")
    by = _column(table, ("key", "source", "file_name"), path)
    texts = table[_column(table, ("caption", "text"), path)].tolist()
    names = [unicodedata.normalize("NFC", str(name)) for name in table[by]]
    names, wanted = _matched(names, images, by, Path(path))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TruelikeError(
            f"models.captioner: {path}: {by} {twice[0]!r} has more than one caption"
        )
    if names and not set(names) & set(wanted):
        raise TruelikeError(
            f"models.captioner: {path}: no {by} in it is that of an image: it has {names[0]!r}, "
            f"the images are named such as {wanted[0]!r}"
        )
    given = {name: _words(text, path, name) for name, text in zip(names, texts, strict=True)}
    captions = [given.get(name, "") for name in wanted]
    return _checked(images.keys, captions, f"models.captioner: {path}").assign(truncated=False)


def _column(table: pd.DataFrame, names: Sequence[str], path: str) -> str:
    """The first of the columns `names` that a table has and that is not empty throughout."""
    for name in names:
        if name in table and any(value is not None and value != "" for value in table[name]):
            return name
    raise TruelikeError(
        f"models.captioner: {path} must have the columns caption (or text) and key, source or "
        f"file_name, not empty, found {', '.join(map(str, table))}"
    )


def _matched(
    names: list[str], images: ImageSet, by: str, path: Path
) -> tuple[list[str], list[str]]:
    """The names in a table, and those that it should have for the images, in one form.

    A ``file_name`` is relative to the table's folder, a source to that of the data set above it: as
    many folders above the table are put before the names as make the most of them match.
    """
    if by == "key":
        return names, images.keys
    wanted = [unicodedata.normalize("NFC", str(source)) for source in images.index["source"]]
    if by == "source":
        return names, wanted
    folders = [part for part in path.absolute().parent.parts if part != path.anchor]
    sources = set(wanted)
    forms = [
        [
            posixpath.normpath(posixpath.join(*folders[len(folders) - above :], name))
            for name in names
        ]
        for above in range(len(folders) + 1)
    ]
    return max(forms, key=lambda form: sum(name in sources for name in form)), wanted


def _words(text: Any, path: str, name: str) -> str:
    """A caption with single spaces; empty for null, NaN and marks that are not seen."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    if not isinstance(text, str):
        raise TruelikeError(
            f"models.captioner: {path}: the caption of {name!r} must be a text, found {text!r}"
        )
    words = " ".join(text.split())
    kinds = {unicodedata.category(letter) for letter in words}
    if "Cc" in kinds:
        raise TruelikeError(
            f"models.captioner: {path}: the caption of {name!r} has control characters: {words!r}"
        )
    return words if kinds - {"Cf", "Zs"} else ""


def rewrite_captions(captions: pd.DataFrame, rewriter: Model, settings: Rewrite) -> pd.DataFrame:
    """Add the column `rewrites`: up to ``settings.count`` of each caption, those whose length is
    right (CiP, RF).

    An image's rewrites depend on its key, its caption and the seed, not on other images. Finished
    parts of a killed run are used again.
    """
    resolve(rewriter.path)  # a model that is missing is named
    rows = list(zip(captions["key"], captions["caption"], strict=True))
    parts = [
        Part((f"{start:08d}.json",), work, len(work))
        for start in range(0, len(rows), REWRITTEN_AT_ONCE)
        for work in [rows[start : start + REWRITTEN_AT_ONCE]]
    ]
    key = scratch_key(__file__, [settings.model_dump(), rewriter.dtype, rows], rewriter.path)
    with scratch("rewrite", key) as folder:
        make = partial(_rewrite, settings=settings)
        map_parts(parts, folder, partial(open_rewriter, rewriter), make, "rewrite", "caption")
        rewrites = [
            texts for part in parts for texts in json.loads((folder / part.files[0]).read_text())
        ]
    return captions.assign(rewrites=pd.Series(rewrites, index=captions.index, dtype=object))


def _rewrite(
    rewriter: Rewriter, captions: list[tuple[str, str]], progress: Progress, *, settings: Rewrite
) -> list[bytes]:
    rewrites: list[list[str]] = []
    for key, caption in captions:
        if not caption:  # dropped
            rewrites.append([])
            progress(1)
            continue
        request = settings.instruction.replace("{caption}", caption)
        texts = rewriter.rewrite(
            request, settings.count, settings.max_tokens, rewrite_seed(settings.seed, key)
        )
        rewrites.append([text for text in texts if right_length(text)])
        progress(1)
    return [json.dumps(rewrites).encode()]


def rewrite_seed(seed: int, key: str) -> int:
    """The seed of one image's rewrites, from 0 to 2^63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/rewrite/{key}".encode()).digest()[:8], "big") >> 1


def right_length(text: str) -> bool:
    """Whether a rewritten caption has between 5 and 65 words, both excluded."""
    return 5 < len(text.split()) < 65


def _checked(keys: Sequence[str], captions: Sequence[str], origin: str) -> pd.DataFrame:
    empty = [key for key, caption in zip(keys, captions, strict=True) if not caption]
    if empty:
        raise TruelikeError(
            f"{origin}: no caption for {len(empty)} of {len(keys)} images, the first is "
            f"{empty[0]!r}; "
            "add it, or set caption.by to 'none' for prompts of the class alone"
        )
    return pd.DataFrame({"key": list(keys), "caption": list(captions)})

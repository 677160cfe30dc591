"""Labels of many files joined by name: what a number means is said by its own file, never by
another.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from truelike.runtime.errors import TruelikeError
from truelike.sources.source import listed, nfc


@dataclass(frozen=True)
class Labels:
    """The labels of one file as they are stored, and the names that its numbers stand for, where it
    has such.

    `place` says for a message where a row is.
    """

    file: str
    values: Sequence[Any]
    names: Sequence[str] | None
    place: Callable[[int], str]


def join(
    files: Sequence[Labels], section: str, skip_unlabelled: bool
) -> tuple[list[list[str | None]], list[str]]:
    """The class name of every row of every file, and all class names; None for a row to be left
    out.

    Raises TruelikeError for a label that is no word or whole number, for a missing one (null,
    empty, NaN, or -1 among named classes) unless `skip_unlabelled`, and for files whose labels
    cannot be joined by name.
    """
    values = [
        [_plain(value, file.place(row)) for row, value in enumerate(file.values)] for file in files
    ]
    kinds = [_kind(file, row) for file, row in zip(files, values, strict=True)]
    _check_kinds(files, kinds, section)
    missing = []
    joined: list[list[str | None]] = []
    for file, row in zip(files, values, strict=True):
        names = [_name(value, file, number, skip_unlabelled) for number, value in enumerate(row)]
        missing += [file.place(number) for number, name in enumerate(names) if name is None]
        joined.append(names)
    if missing and not skip_unlabelled:
        raise TruelikeError(
            f"{section}.source: {len(missing):,} images have no label (null, empty, NaN, or -1), "
            "the first is "
            f"{missing[0]}; label them, or set {section}.skip_unlabelled: true to leave them out"
        )
    class_names = _class_names(files, kinds, joined)
    check_class_names(class_names, section)
    return joined, class_names


def whole_numbers(texts: Sequence[str]) -> list[Any]:
    """Labels of a text file: numbers where all of them that are not empty are whole numbers, else
    the words.
    """
    given = [text for text in texts if text]
    if all(text.removeprefix("-").isdecimal() and str(int(text)) == text for text in given):
        return [int(text) if text else None for text in texts]
    return list(texts)


def _plain(value: Any, place: str) -> str | int | None:
    """A label as a word or a whole number; None if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return nfc(value) or None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    what = (
        "a list: images with several classes are not supported"
        if isinstance(value, list)
        else repr(value)
    )
    raise TruelikeError(f"{place}: the label must be a word or a whole number, found {what}")


def _kind(file: Labels, values: Sequence[str | int | None]) -> str | None:
    """What kind of labels a file has: named numbers, words or bare numbers; None if it has none."""
    types = {type(value) for value in values if value is not None}
    if len(types) > 1:
        word = next(row for row, value in enumerate(values) if isinstance(value, str))
        number = next(row for row, value in enumerate(values) if isinstance(value, int))
        raise TruelikeError(
            f"{file.place(word)} has a word as label, {file.place(number)} a number; use one of "
            "them"
        )
    if not types:
        return None
    return "names" if file.names is not None else "words" if types == {str} else "numbers"


def _check_kinds(files: Sequence[Labels], kinds: Sequence[str | None], section: str) -> None:
    of_kind = {kind: file for file, kind in reversed(list(zip(files, kinds, strict=True))) if kind}
    if "numbers" in of_kind and len(of_kind) > 1:
        other = of_kind.get("names") or of_kind["words"]
        raise TruelikeError(
            f"{section}.source: the labels of {of_kind['numbers'].file} are bare numbers, those of "
            f"{other.file} are names, so they cannot be joined; name both, or choose files with "
            f"{section}.config or {section}.splits"
        )
    named = [file for file, kind in zip(files, kinds, strict=True) if kind == "names"]
    for file in named[1:]:
        if set(file.names or ()) != set(named[0].names or ()):
            different = sorted(set(file.names or ()) ^ set(named[0].names or ()))
            raise TruelikeError(
                f"{section}.source: {named[0].file} and {file.file} have other classes: "
                f"{listed(different)} are in one "
                f"of them only; choose one set of files with {section}.config or {section}.splits"
            )
    for file, kind in zip(files, kinds, strict=True):
        unknown = (
            sorted({nfc(value) for value in file.values if value} - set(named[0].names or ()))
            if named and kind == "words"
            else []
        )
        if unknown:
            raise TruelikeError(
                f"{section}.source: {file.file} has the classes {listed(unknown)}, which "
                f"{named[0].file} does not name; "
                f"choose one set of files with {section}.config or {section}.splits"
            )


def _name(value: str | int | None, file: Labels, row: int, skip_unlabelled: bool) -> str | None:
    if value is None or (value == -1 and (file.names is not None or skip_unlabelled)):
        return None
    if file.names is None:
        return str(value)
    if isinstance(value, int) and 0 <= value < len(file.names):
        return nfc(file.names[value])
    if isinstance(value, str) and value in file.names:
        return value
    raise TruelikeError(
        f"{file.place(row)}: label {value!r} is none of the {len(file.names)} classes "
        f"{listed(file.names)}"
    )


def _class_names(
    files: Sequence[Labels], kinds: Sequence[str | None], joined: Sequence[Sequence[str | None]]
) -> list[str]:
    """Named classes in the order of the first file that names them, then words in order, whole
    numbers by value.
    """
    named = [
        nfc(name)
        for file, kind in zip(files, kinds, strict=True)
        if kind == "names"
        for name in file.names or ()
    ]
    found = {name for names in joined for name in names if name is not None} - set(named)
    whole = all(name.lstrip("-").isdecimal() for name in found)
    return [
        *dict.fromkeys(named),
        *sorted(found, key=lambda name: (int(name), name) if whole else (0, name)),
    ]


def check_class_names(class_names: Sequence[str], section: str) -> None:
    """Raise TruelikeError for a class name that is blank or has control characters, and for names
    that differ only by spaces and marks that are not seen.
    """
    seen: dict[str, str] = {}
    for name in class_names:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name) or not name.strip():
            raise TruelikeError(
                f"{section}.source: the class name {name!r} is blank or has control characters, "
                "such as a line break; "
                "rename it"
            )
        visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
        other = seen.setdefault(" ".join(visible.split()), name)
        if other != name:
            raise TruelikeError(
                f"{section}.source: the class names {other!r} and {name!r} look the same; make "
                "them one class"
            )

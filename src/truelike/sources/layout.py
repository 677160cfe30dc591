"""Which file of a source is of which split: by the names of files and folders, or by hand.

``docs/data.md`` states the rule. What it does not place is a TruelikeError that shows the tree and
what to set.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from truelike.runtime.errors import TruelikeError
from truelike.sources.settings import Splits
from truelike.sources.source import SPLITS, Tree, drawing, listed, parts

WORDS = {
    "train": {"train"},
    "training": {"train"},
    "validation": {"validation"},
    "valid": {"validation"},
    "val": {"validation"},
    "dev": {"validation"},
    "test": {"test"},
    "testing": {"test"},
    "eval": {"test"},
    "evaluation": {"test"},
    "trainval": {"train", "validation"},
}
SPLIT_COLUMN = "split"  # of tables
Folder = tuple[str, ...]  # the parts of its path
ADDED = re.compile(r"(?<=.)(set|sets|data|split|images|imgs)$")


def named_splits(name: str) -> set[str]:
    """The splits whose words are in a name: ``train`` in ``seg_train``, ``TrainSet``, ``train2017``
    or ``my-train.1``.
    """
    found: set[str] = set()
    for run in re.split(r"[\W\d_]+", name):
        for word in re.split(r"(?<=[a-z])(?=[A-Z])", run):
            found |= WORDS.get(ADDED.sub("", word.lower()), set())
    return found


def refusal(problem: str, tree: Tree, section: str, advice: str = "") -> TruelikeError:
    """The error for a layout that the rule does not place; `section` is that of the source's
    parameters.
    """
    example = (
        f"set {section}.splits to say which folders or files are which, such as "
        "{train: FOLDER, test: FOLDER}"
    )
    return TruelikeError(
        f"{section}.source: {problem}\n{drawing(tree)}\n{advice or example} (docs/data.md)"
    )


def by_hand(tree: Tree, splits: Splits, section: str) -> dict[str, tuple[str, Folder | None]]:
    """The split and the folder of the class (None where there is none) of every file that a pattern
    names.

    Raises TruelikeError for a pattern that names no file, or a file that patterns of two splits
    name.
    """
    paths = {file: parts(file) for file in tree.files}
    placed: dict[str, tuple[str, Folder | None]] = {}
    for split in SPLITS:
        for pattern in getattr(splits, split):
            wanted = parts(pattern)
            matched = [file for file, path in paths.items() if _matches(path, wanted)]
            if not matched:
                raise refusal(
                    f"{section}.splits: {split}: {pattern!r} names no file", tree, section
                )
            for file in matched:
                other, _ = placed.get(file, (split, None))
                if other != split:
                    raise refusal(
                        f"{section}.splits: {file!r} is in {other} and {split}", tree, section
                    )
                placed[file] = (split, _class_folder(paths[file], wanted))
    return placed


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern names a file or a folder above it; a part that is ``*`` is a folder."""
    needed = max(len(pattern), _star(pattern) + 2 if "*" in pattern else 0)
    deep_enough = len(path) >= needed
    return deep_enough and all(
        fnmatchcase(part, wanted) for part, wanted in zip(path, pattern, strict=False)
    )


def _star(pattern: Sequence[str]) -> int:
    return list(pattern).index("*")


def _class_folder(path: Folder, pattern: Sequence[str]) -> Folder | None:
    """The folder that a lone ``*`` of the pattern stands for, else the first below what the pattern
    names.
    """
    place = _star(pattern) if "*" in pattern else len(pattern)
    return path[: place + 1] if place < len(path) - 1 else None


def splits_of_files(tree: Tree, section: str) -> dict[str, str]:
    """The split of every table or archive by its own name, else by the nearest folder's that says
    one.

    All are train where no name says a split, if they are numbered parts of one thing. Raises
    TruelikeError for a name that says two splits, or where some say one and some do not.
    """
    said: dict[str, set[str]] = {}
    for file in tree.files:
        *folders, name = parts(file)
        stem = name.split(".")[0]
        said[file] = next(filter(None, map(named_splits, (stem, *reversed(folders)))), set())
    if both := [file for file, found in said.items() if len(found) > 1]:
        raise refusal(f"the names of {listed(both)} say two splits", tree, section)
    silent = [file for file, found in said.items() if not found]
    if silent and len(silent) < len(said):
        raise refusal(f"no split is said by the names of {listed(silent)}", tree, section)
    if len({re.sub(r"\d+", "0", file) for file in silent}) > 1:
        raise refusal(
            f"no split is said by {listed(silent)}, and these are no numbered parts", tree, section
        )
    return {file: next(iter(found), "train") for file, found in said.items()}


def splits_of_rows(
    values: Sequence[Any], split: str, place: Callable[[int], str], section: str
) -> list[str]:
    """The split of every row of a table by its column `split`; `split` where no row says one.

    Raises TruelikeError where some rows say a split and some do not, or a row says two.
    """
    said = [named_splits(str(value)) for value in values]
    if not any(said):
        return [split] * len(values)
    for row, found in enumerate(said):
        if len(found) != 1:
            raise TruelikeError(
                f"{place(row)}: the column {SPLIT_COLUMN!r} says {values[row]!r}, which is no "
                f"split, or two; write train, validation or test, or set {section}.splits, which "
                "goes before the column"
            )
    return [next(iter(found)) for found in said]


def configurations(tree: Tree) -> dict[Folder, list[str]]:
    """The tables or archives of each configuration, by the folders and words that name it.

    These are the folders, but for a split's, and what stands before the split in a file's name:
    ``fine`` of ``fine/train-0.parquet`` and ``fine_train.parquet``; in a split's folder the file's
    first word: ``fine`` of ``train/fine-0.parquet``.
    """
    found: dict[Folder, list[str]] = defaultdict(list)
    for file in tree.files:
        *folders, name = parts(file)
        path = [folder for folder in folders if not named_splits(folder)]
        found[(*path, *_name_of_set(name))].append(file)
    return dict(found)


def _name_of_set(name: str) -> Folder:
    words = re.split(r"[\W_]+", name.split(".")[0])
    split = next((place for place, word in enumerate(words) if named_splits(word)), None)
    before = "_".join(words[:split] if split is not None else words[:1])
    named = before.strip("_") and not re.fullmatch(r"[\d_]+", before)
    return (before,) if named else ()


def only_configuration(tree: Tree, section: str) -> None:
    """Raise TruelikeError if there are several configurations."""
    names = sorted("/".join(path) or "." for path in configurations(tree))
    if len(names) > 1:
        advice = f"choose one with {section}.config, or name files with {section}.splits"
        raise refusal(f"several configurations: {listed(names)}", tree, section, advice)


def configuration(tree: Tree, config: str, section: str) -> Tree:
    """The tables or archives of one configuration; raises TruelikeError if there are none."""
    found = configurations(tree)
    chosen = [
        file
        for path, files in found.items()
        if config in ("/".join(path) or ".", *path)
        for file in files
    ]
    if not chosen:
        names = sorted("/".join(path) or "." for path in found)
        raise TruelikeError(
            f"{section}.config: {config!r} is none of {listed(names)} in {tree.root}"
        )
    return tree.only(sorted(chosen))


def splits_of_pictures(tree: Tree, section: str) -> dict[str, str]:
    """The split of pictures whose classes a table names: by their first folder, else all train."""
    tops = {file: path[0] if len(path := parts(file)) > 1 else "" for file in tree.files}
    said = {top: named_splits(top) for top in set(tops.values())}
    odd = sorted(top or "." for top, found in said.items() if len(found) != 1)
    if odd and any(said.values()):
        raise refusal(f"no split, or two, are said by {listed(odd)}", tree, section)
    return {file: next(iter(said[top]), "train") for file, top in tops.items()}


def classes_of_pictures(tree: Tree, section: str) -> dict[str, tuple[str, Folder]]:
    """The split of every picture and the folder of its class: ``SPLIT/CLASS/...`` throughout, or
    ``CLASS/...``.

    Raises TruelikeError for pictures in no class folder, and for what could be read in more than
    one way.
    """
    paths = {file: parts(file) for file in tree.files}
    if loose := [file for file, path in paths.items() if len(path) == 1]:
        raise refusal(
            f"{len(loose)} pictures lie in no class folder, the first is {loose[0]}",
            tree,
            section,
            LABELS,
        )
    tops = _children(paths.values(), ())
    said = {top: named_splits(top) for top in tops}
    if all(len(found) == 1 for found in said.values()) and not all(
        below.flat for below in tops.values()
    ):
        return _with_splits(
            paths, {top: next(iter(found)) for top, found in said.items()}, tree, section
        )
    _check_class_level(tops, (), tree, section)
    placed = {file: ("train", path[:1]) for file, path in paths.items()}
    _check_below(placed, tree, section)
    return placed


LABELS = (
    "give every class a folder, or list the pictures in metadata.csv (file_name, label); "
    "or leave them out with splits that name the folders of classes, such as {train: '*'} or "
    "{train: 'train/*'}"
)


class _Below:
    """What a folder holds: whether pictures lie directly in it, and its folders that hold some."""

    def __init__(self) -> None:
        self.flat = False
        self.folders: set[str] = set()


def _children(paths: Iterable[Folder], prefix: Folder) -> dict[str, _Below]:
    found: dict[str, _Below] = defaultdict(_Below)
    depth = len(prefix)
    for path in paths:
        if path[:depth] == prefix and len(path) > depth + 1:
            below = found[path[depth]]
            if len(path) == depth + 2:
                below.flat = True
            else:
                below.folders.add(path[depth + 1])
    return dict(found)


def _with_splits(
    paths: dict[str, Folder], split_of: dict[str, str], tree: Tree, section: str
) -> dict[str, tuple[str, Folder]]:
    for split in SPLITS:
        twice = sorted(top for top, found in split_of.items() if found == split)
        if len(twice) > 1:
            advice = f"set {section}.splits, with {split}: {twice} for both, or with the one to use"
            raise refusal(f"{listed(twice)} all say {split}", tree, section, advice)
    placed: dict[str, tuple[str, Folder]] = {}
    for top, split in split_of.items():
        prefix: Folder = (top,)
        inside = {file: path for file, path in paths.items() if path[0] == top}
        while len(only := _children(inside.values(), prefix)) == 1 and named_splits(
            next(iter(only))
        ) == {split}:
            prefix += (next(iter(only)),)
        if loose := [file for file, path in inside.items() if len(path) == len(prefix) + 1]:
            problem = (
                f"{len(loose)} {split} pictures lie in no class folder, the first is {loose[0]}"
            )
            raise refusal(problem, tree, section, LABELS)
        _check_class_level(_children(inside.values(), prefix), prefix, tree, section)
        placed |= {file: (split, path[: len(prefix) + 1]) for file, path in inside.items()}
    _check_below(placed, tree, section)
    return {file: placed[file] for file in paths}


def _check_class_level(
    classes: dict[str, _Below], prefix: Folder, tree: Tree, section: str
) -> None:
    """Refuse folders side by side that may be splits, or other parts of a set, and not classes."""
    said = {name: found for name in sorted(classes) if (found := named_splits(name))}
    every = "/".join((*prefix, "*"))
    advice = (
        f"set {section}.splits, such as {{train: {every!r}}} if all folders there are classes, or "
        "{train: FOLDER, test: FOLDER} to name the folders of each split"
    )
    if said and (
        len(set().union(*said.values())) > 1 or not all(classes[name].flat for name in said)
    ):
        raise refusal(f"{listed(list(said))} may be splits or classes", tree, section, advice)
    seen: dict[str, str] = {}
    for name, below in sorted(classes.items()):
        if below.flat:
            continue
        for other in {seen[folder] for folder in below.folders if folder in seen}:
            if len(shared := below.folders & classes[other].folders) > 1:
                if all(map(named_splits, shared)):
                    inner = {min(named_splits(inner)): f"{every}/{inner}" for inner in shared}
                    pairs = ", ".join(f"{split}: {inner[split]!r}" for split in sorted(inner))
                    advice = f"set {section}.splits, such as {{{pairs}}}, where * is the class"
                same = f"{other!r} and {name!r} hold the same folders {listed(sorted(shared), 3)}"
                raise refusal(f"{same}, so which are classes?", tree, section, advice)
        seen |= dict.fromkeys(below.folders, name)


def _check_below(placed: dict[str, tuple[str, Folder]], tree: Tree, section: str) -> None:
    """Refuse folders within a class that say another split."""
    for file, (split, folder) in placed.items():
        if any(named_splits(name) - {split} for name in parts(file)[len(folder) : -1]):
            top = tree.root / PurePosixPath(file).parts[0]
            advice = (
                f"set {section}.source: {top} if that is the set; or set {section}.splits, such as "
                "{train: '*/train', test: '*/test'}, where a lone * is the folder of the class"
            )
            raise refusal(
                f"{file!r} would be {split}, of class {folder[-1]!r}", tree, section, advice
            )

"""What a source of real images is, whatever its format: class names, one lazy record per image, and
what was left out.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from truelike.runtime.errors import TruelikeError

SPLITS = ("train", "validation", "test")
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")  # what macOS and network drives put beside the files
SHOWN = 10
SHOWN_FOLDERS = 20


@dataclass(frozen=True)
class Record:
    """One image of a source: its split, class, path relative to the source, and how to read its
    file's bytes.
    """

    split: str
    class_name: str
    source: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Source:
    """A labelled image collection; label i means ``class_names[i]``. `notes` says what was left
    out, and why.
    """

    class_names: list[str]
    records: list[Record]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """The files and folders below a root, in order of their paths, which are relative to it and
    have slashes.

    `hidden` counts the entries that are hidden or a system's own, `special` names pipes and links
    that lead back.
    """

    root: Path
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    hidden: int = 0
    special: tuple[str, ...] = ()

    def only(self, files: Iterable[str]) -> "Tree":
        return replace(self, files=tuple(files))

    def notes(self) -> list[str]:
        found = [f"left out {self.hidden} hidden files and folders"] if self.hidden else []
        return found + (
            [f"left out {listed(self.special)}: no regular files"] if self.special else []
        )


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def parts(path: str) -> tuple[str, ...]:
    """The parts of a path in composed letters, as names are compared."""
    return PurePosixPath(nfc(path)).parts


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """A list of names for a message: the first of them, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + more


def walk(root: Path) -> Tree:
    """Find all files below a directory, through links, past what is hidden.

    Raises TruelikeError for a folder that cannot be opened, or a name that is not UTF-8.
    """
    files: list[str] = []
    folders: list[str] = []
    special: list[str] = []
    hidden = 0

    def visit(folder: str, path: Path, above: frozenset[tuple[int, int]]) -> None:
        nonlocal hidden
        try:
            status = path.stat()
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise TruelikeError(
                f"{path}: cannot be opened ({error.strerror}); make it readable"
            ) from None
        place = (status.st_dev, status.st_ino)
        if place in above:
            special.append(folder)
            return
        for entry in entries:
            name = f"{folder}{entry.name}"
            if not _is_utf8(entry.name):
                raise TruelikeError(
                    f"{root}: the name of {name!r} is not UTF-8, so it cannot be recorded; rename "
                    "it"
                )
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                hidden += 1
            elif entry.is_dir():
                folders.append(name)
                visit(f"{name}/", Path(entry.path), above | {place})
            elif (
                entry.is_file() or entry.is_symlink()
            ):  # a link to nothing is named when it is read
                files.append(name)
            else:
                special.append(name)

    visit("", root, frozenset())
    return Tree(root, _ordered(files), _ordered(folders), hidden, tuple(special))


def _is_utf8(name: str) -> bool:
    return not re.search("[\udc80-\udcff]", name)


def _ordered(paths: list[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=lambda path: path.split("/")))


def drawing(tree: Tree) -> str:
    """The tree that was seen, for a message: the folders with files, and how many of which kind."""
    counts: dict[str, Counter[str]] = {}
    for file in tree.files:
        path = PurePosixPath(file)
        counts.setdefault(str(path.parent), Counter())[path.suffix.lower() or "no suffix"] += 1
    lines = [
        f"{'' if folder == '.' else folder}/: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
        for folder, kinds in counts.items()
    ]
    if len(lines) > SHOWN_FOLDERS:
        lines = [*lines[:SHOWN_FOLDERS], f"and {len(lines) - SHOWN_FOLDERS:,} more folders"]
    return "\n  ".join([f"found in {tree.root}:", *(lines or ["no files"])])


def left_out_files(files: Sequence[str]) -> list[str]:
    """The note on files that are not used: how many of which kind, and the first of them."""
    if not files:
        return []
    kinds = Counter(PurePosixPath(file).suffix.lower() or "without a suffix" for file in files)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(8))
    return [f"left out {len(files):,} other files ({shown}), the first is {files[0]}"]


def distinct_sources(paths: Sequence[str]) -> list[str]:
    """The paths in composed letters, but as they are where two would become one (NFC and NFD
    twins).
    """
    count = Counter(map(nfc, paths))
    return [path if count[nfc(path)] > 1 else nfc(path) for path in paths]


def description(source: Source) -> str:
    """What was found: images per split and class, and what was left out."""
    counts = Counter((record.split, record.class_name) for record in source.records)
    present = [split for split in SPLITS if any(counts[split, name] for name in source.class_names)]
    totals = [
        f"{sum(counts[split, name] for name in source.class_names):,} {split}" for split in present
    ]
    lines = [f"{len(source.class_names)} classes, {', '.join(totals) or 'no'} images"]
    for name in source.class_names[:100]:
        lines.append(
            f"{name}: " + ", ".join(f"{counts[split, name]:,} {split}" for split in present)
        )
    if len(source.class_names) > 100:
        lines.append(f"and {len(source.class_names) - 100:,} more classes")
    return "\n  ".join([*lines, *source.notes])

"""Classes of pictures by tables that list them: ``metadata.csv``, ``.jsonl`` or ``.parquet``."""

import posixpath
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from truelike.imageset.tables import read_user_table
from truelike.runtime.errors import TruelikeError
from truelike.sources.labels import Labels, join, whole_numbers
from truelike.sources.layout import SPLIT_COLUMN, splits_of_rows
from truelike.sources.settings import Reading
from truelike.sources.source import Record, Source, Tree, distinct_sources, listed, nfc

FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN, LABEL_COLUMN = "file_name", "label"

Rows = list[tuple[str, Any, Any]]  # a picture's path below the root, its label and its split


def is_metadata(file: str) -> bool:
    return PurePosixPath(file).name in FILES


def label_tables(tree: Tree, settings: Reading, section: str) -> dict[str, Rows]:
    """The rows of the metadata tables of `tree` that label pictures, by the path of the table.

    A table without a column of file names and one of labels labels none. Raises TruelikeError for
    a table that cannot be read, or lacks a column that the settings name.
    """
    columns = (settings.image_column or FILE_COLUMN, settings.label_column or LABEL_COLUMN)
    known = {nfc(file): file for file in tree.files} | {file: file for file in tree.files}
    found = {}
    for name in filter(is_metadata, tree.files):
        table = read_user_table(tree.root / name, f"{section}.source")
        absent = [column for column in columns if column not in table]
        if not absent:
            found[name] = _rows(name, table, columns, known)
        elif settings.image_column or settings.label_column:
            raise TruelikeError(
                f"{tree.root / name}: no column {absent[0]!r}, found {', '.join(map(str, table))}; "
                f"name it with {section}.image_column or {section}.label_column"
            )
    return found


def _rows(
    name: str, table: pd.DataFrame, columns: tuple[str, str], known: Mapping[str, str]
) -> Rows:
    files, labels = (table[column].tolist() for column in columns)
    folder = posixpath.dirname(name)
    paths = [posixpath.normpath(posixpath.join(folder, str(file))) for file in files]
    paths = [known.get(path) or known.get(nfc(path)) or path for path in paths]
    if name.endswith(".csv"):
        labels = whole_numbers(labels)
    splits = table[SPLIT_COLUMN].tolist() if SPLIT_COLUMN in table else [None] * len(table)
    return list(zip(paths, labels, splits, strict=True))


def read_metadata(
    tree: Tree,
    tables: Mapping[str, Rows],
    splits: Mapping[str, str],
    settings: Reading,
    section: str,
) -> Source:
    """Read the pictures of `splits`, files of `tree`, with the labels that `tables` give them.

    A table's column `split` goes before `splits` unless those are set by hand.

    Pictures that no table lists have no label. Raises TruelikeError for a picture that is listed
    twice, or listed and not there.
    """
    missing = _missing(tree, tables, settings, section)
    used = {name: [row for row in rows if row[0] in splits] for name, rows in tables.items()}
    count = Counter(path for rows in used.values() for path, *_ in rows)
    if twice := [path for path, times in count.items() if times > 1]:
        raise TruelikeError(f"{section}.source: {tree.root}: {listed(twice)} listed twice")
    used["no metadata"] = [(file, None, None) for file in splits if file not in count]
    labels = [
        Labels(
            str(tree.root / name),
            [label for _, label, _ in rows],
            None,
            [f"{name}: {path}" for path, *_ in rows].__getitem__,
        )
        for name, rows in used.items()
    ]
    joined, class_names = join(labels, section, settings.skip_unlabelled)
    paths = [path for rows in used.values() for path, *_ in rows]
    class_of = dict(zip(paths, [name for names in joined for name in names], strict=True))
    files = list(splits)
    if settings.splits is None:
        splits = {**splits, **_said(used, section)}
    records = [
        Record(splits[file], class_name, source, (tree.root / file).read_bytes)
        for file, source in zip(files, distinct_sources(files), strict=True)
        if (class_name := class_of[file]) is not None
    ]
    unlabelled = len(files) - len(records)
    notes = [f"left out {unlabelled:,} pictures without a label"] if unlabelled else []
    notes += [f"left out {missing:,} pictures that are listed but not there"] if missing else []
    return Source(class_names, records, tuple(notes))


def _said(tables: Mapping[str, Rows], section: str) -> dict[str, str]:
    """The splits of pictures that the column `split` of their table says."""
    said: dict[str, str] = {}
    for name, rows in tables.items():
        values = [split for *_, split in rows]
        places = [f"{name}: {path}" for path, *_ in rows]
        if any(values):
            found = splits_of_rows(values, "", places.__getitem__, section)
            said |= {path: split for (path, *_), split in zip(rows, found, strict=True) if split}
    return said


def _missing(tree: Tree, tables: Mapping[str, Rows], settings: Reading, section: str) -> int:
    """How many pictures are listed and not there; raises TruelikeError unless they are skipped."""
    known = set(tree.files)
    missing = [
        f"{name}: {path}" for name, rows in tables.items() for path, *_ in rows if path not in known
    ]
    if missing and not settings.skip_bad:
        raise TruelikeError(
            f"{section}.source: {tree.root}: {len(missing):,} pictures are listed but not there: "
            f"{listed(missing)}; restore them, or set {section}.skip_bad: true to leave them out"
        )
    return len(missing)

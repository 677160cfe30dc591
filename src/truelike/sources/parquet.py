"""A source of parquet files in the Hugging Face layout: encoded images, labels, and the names of
the classes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truelike.runtime.errors import TruelikeError
from truelike.sources.labels import Labels, join
from truelike.sources.layout import SPLIT_COLUMN, splits_of_rows
from truelike.sources.settings import Reading
from truelike.sources.source import SPLITS, Record, Source, Tree, listed

IMAGE_COLUMN, LABEL_COLUMN = "image", "label"


def read_parquet(tree: Tree, splits: dict[str, str], settings: Reading, section: str) -> Source:
    """Read the parquet files of `tree`, whose splits are given; a column `split` goes before them
    unless they are set by hand. Raises TruelikeError for columns of other kinds.
    """
    image_column, label_column = (
        settings.image_column or IMAGE_COLUMN,
        settings.label_column or LABEL_COLUMN,
    )
    train_first = sorted(splits, key=lambda name: SPLITS.index(splits[name]))
    tables = {
        name: _table(tree.root / name, image_column, label_column, section) for name in train_first
    }
    labels = [
        Labels(
            str(tree.root / name),
            table[label_column].to_pylist(),
            _class_names(tree.root / name, table.schema, label_column),
            partial(_place, str(tree.root / name)),
        )
        for name, table in tables.items()
    ]
    joined, class_names = join(labels, section, settings.skip_unlabelled)
    paths = {name: _paths(table, image_column) for name, table in tables.items()}
    sources = unique_sources(paths, splits)
    rows = {
        name: _splits(table, splits[name], tree.root / name, settings, section)
        for name, table in tables.items()
    }
    records = [
        Record(
            rows[name][row],
            class_name,
            sources[name][row],
            partial(_cell, table, image_column, row, tree.root / name),
        )
        for (name, table), names in zip(tables.items(), joined, strict=True)
        for row, class_name in enumerate(names)
        if class_name is not None
    ]
    unlabelled = sum(len(names) for names in joined) - len(records)
    return Source(
        class_names,
        records,
        (f"left out {unlabelled:,} images without a label",) if unlabelled else (),
    )


def _splits(table: pa.Table, split: str, file: Path, settings: Reading, section: str) -> list[str]:
    """The split of every row."""
    if settings.splits or SPLIT_COLUMN not in table.schema.names:
        return [split] * len(table)
    values = table[SPLIT_COLUMN].to_pylist()
    return splits_of_rows(values, split, partial(_place, str(file)), section)


def _place(file: str, row: int) -> str:
    return f"{file}: row {row}"


def holds_images(file: Path, settings: Reading) -> bool:
    """Whether a parquet file has a column of encoded images by the name that is looked for."""
    column = settings.image_column or IMAGE_COLUMN
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return False
    return column in schema.names and _holds_bytes(schema.field(column).type)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind} and _holds_bytes(kind.field("bytes").type)
    return (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _table(file: Path, image_column: str, label_column: str, section: str) -> pa.Table:
    try:
        schema = pq.read_schema(file)
        for column, parameter in ((image_column, "image_column"), (label_column, "label_column")):
            if (count := schema.names.count(column)) != 1:
                what = "no column" if not count else "more than one column"
                raise TruelikeError(
                    f"{file}: {what} {column!r}, found {', '.join(schema.names)}; name it with "
                    f"{section}.{parameter}"
                )
        kind = schema.field(image_column).type
        if not _holds_bytes(kind):
            raise TruelikeError(
                f"{file}: column {image_column!r} must hold encoded images (bytes, path), found "
                f"{kind}"
            )
        columns = [image_column, label_column, *{SPLIT_COLUMN} & set(schema.names)]
        return pq.read_table(file, columns=columns, memory_map=True, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise TruelikeError(f"{file}: not a readable parquet file ({error}); restore it") from None


def _class_names(file: Path, schema: pa.Schema, label_column: str) -> list[str] | None:
    """The names of a ``ClassLabel`` column in the Hugging Face metadata, if there is one."""
    try:
        found: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError as error:
        raise TruelikeError(
            f"{file}: its Hugging Face metadata cannot be read ({error}); restore it"
        ) from None
    for part in ("info", "features", label_column, "names"):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        return None
    if (
        not isinstance(found, list)
        or not all(isinstance(name, str) for name in found)
        or len(set(found)) < len(found)
    ):
        raise TruelikeError(
            f"{file}: the class names of {label_column!r} must be different words, found {found!r}"
        )
    return found


def _paths(table: pa.Table, column: str) -> list[str | None]:
    """The path that each image is stored with, None for one without."""
    kind = table.schema.field(column).type
    if not pa.types.is_struct(kind) or "path" not in {field.name for field in kind}:
        return [None] * len(table)
    return pc.struct_field(table[column], "path").to_pylist()


def unique_sources(
    paths: Mapping[str, Sequence[str | None]], splits: Mapping[str, str]
) -> dict[str, list[str]]:
    """A path within the source for every image of every file: ``SPLIT/PATH`` where that is one
    image's alone.

    The images of a file that repeats another file's paths are ``FILE/PATH``, those without paths
    ``FILE/ROW``.
    """
    usable = {file for file, found in paths.items() if all(found) and len(set(found)) == len(found)}
    count = Counter((splits[file], path) for file in usable for path in paths[file])
    sources = {}
    for file, found in paths.items():
        split = splits[file]
        if file not in usable:
            sources[file] = [f"{file}/{row:08d}" for row in range(len(found))]
        elif any(count[split, path] > 1 for path in found):
            sources[file] = [f"{file}/{path}" for path in found]
        else:
            sources[file] = [f"{split}/{path}" for path in found]
    repeated = [
        source
        for source, times in Counter(s for all_ in sources.values() for s in all_).items()
        if times > 1
    ]
    if repeated:
        raise TruelikeError(
            f"two images have the path {listed(repeated)} in the source; give each its own"
        )
    return sources


def _cell(table: pa.Table, column: str, row: int, file: Path) -> bytes:
    value = table[column][row].as_py()
    data = value["bytes"] if isinstance(value, dict) else value
    if not data:
        raise TruelikeError(
            f"{file}: row {row} has no image bytes; embed the images in the parquet file"
        )
    return data

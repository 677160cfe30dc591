"""Where real images come from: an image folder, a parquet set in the Hugging Face layout, or a set
on the hub.

All end in the same `Source`: class names and one lazy `Record` per image.
"""

import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


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
    """A labelled image collection; label i means ``class_names[i]``."""

    class_names: list[str]
    records: list[Record]


class HubData(BaseModel):
    """The content of a pointer file: a hub data set, a commit of it, and its columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    revision: str | None = None
    image_column: str = "image"
    label_column: str = "label"


def open_source(path: str | Path) -> Source:
    """Open what ``data.source`` names; images are read only when asked for.

    A directory with parquet files is a parquet set. Any other directory holds images:
    ``train/CLASS/...`` with ``test/CLASS/...`` and ``validation/CLASS/...`` where there are such,
    or just ``CLASS/...``, which is all taken as train. A YAML file names a hub data set. Raises
    TruelikeError for anything else, an empty class, fewer than two classes, or a class that one of
    the splits lacks.
    """
    source = read_source(path, "data.source")
    _check_classes(Path(path), source)
    return source


def read_source(path: str | Path, parameter: str) -> Source:
    """Open a source whose splits and classes may be anything; `parameter` is the name by which
    errors call it.
    """
    path = Path(path)
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return _open_hub(path)
    if not path.is_dir():
        raise TruelikeError(
            f"{parameter}: {path} is not there; give a folder with one subfolder of images per "
            "class, a directory of "
            "parquet files, or a YAML file with `hub: OWNER/NAME`"
        )
    if files := sorted(path.rglob("*.parquet")):
        return _open_parquet(path, files, "image", "label")
    return _open_folder(path)


def _check_classes(path: Path, source: Source) -> None:
    if len(source.class_names) < 2:
        found = ", ".join(source.class_names) or "none"
        raise TruelikeError(f"{path}: needs images of two or more classes, found {found}")
    for split in SPLITS:
        present = {record.class_name for record in source.records if record.split == split}
        absent = [name for name in source.class_names if name not in present]
        if absent and (present or split == "train"):
            raise TruelikeError(
                f"{path}: no {split} images of {', '.join(map(repr, absent[:10]))}; every split "
                "needs every class"
            )


def _open_folder(root: Path) -> Source:
    parts = {
        SPLIT_NAMES[p.name.lower()]: p
        for p in sorted(root.iterdir())
        if p.is_dir() and p.name.lower() in SPLIT_NAMES
    }
    if parts and "train" not in parts:
        raise TruelikeError(
            f"{root}: has {', '.join(p.name for p in parts.values())} but no train folder"
        )
    records: list[Record] = []
    names: set[str] = set()
    skipped: list[Path] = []
    for split, folder in (parts or {"train": root}).items():
        for class_folder in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
            if class_folder.is_file():
                skipped.append(class_folder)
                continue
            name = unicodedata.normalize("NFC", class_folder.name)
            names.add(name)
            files = [
                p
                for p in sorted(class_folder.rglob("*"))
                if p.is_file() and not p.name.startswith(".")
            ]
            images = [p for p in files if p.suffix.lower() in Image.registered_extensions()]
            skipped += [p for p in files if p.suffix.lower() not in Image.registered_extensions()]
            records += [
                Record(
                    split,
                    name,
                    unicodedata.normalize("NFC", p.relative_to(root).as_posix()),
                    p.read_bytes,
                )
                for p in images
            ]
    if skipped:
        print(
            f"{root}: left out {len(skipped)} files that are no images in a class folder, the "
            f"first is {skipped[0]}",
            file=sys.stderr,
        )
    return Source(sorted(names), records)


def _open_parquet(root: Path, files: list[Path], image_column: str, label_column: str) -> Source:
    tables = [(file, _read_parquet(file, image_column, label_column)) for file in files]
    named = _class_names(tables[0][1].schema, label_column)
    labels = {label for _, table in tables for label in table[label_column].to_pylist()}
    names = named or [str(label) for label in sorted(labels)]
    records = []
    for file, table in tables:
        split = _split_of(file.relative_to(root))
        labels_here = table[label_column].to_pylist()
        paths = (
            table[image_column].combine_chunks().field("path").to_pylist()
            if _has_path(table, image_column)
            else []
        )
        unique = _usable(paths, len(table))
        for row, label in enumerate(labels_here):
            class_name = _name_of(label, names, f"{file}: row {row}") if named else str(label)
            source = (
                f"{split}/{paths[row]}"
                if unique
                else f"{file.relative_to(root).as_posix()}/{row:08d}"
            )
            records.append(
                Record(split, class_name, source, partial(_cell, table, image_column, row, file))
            )
    repeated = [
        name for name, count in Counter(record.source for record in records).items() if count > 1
    ]
    if repeated:
        raise TruelikeError(
            f"{root}: two images have the path {repeated[0]!r} in their split; give each its own"
        )
    return Source(names, records)


def _read_parquet(file: Path, image_column: str, label_column: str) -> pa.Table:
    try:
        schema = pq.read_schema(file)
        absent = [name for name in (image_column, label_column) if name not in schema.names]
        if absent:
            raise TruelikeError(f"{file}: no column {absent[0]!r}, found {', '.join(schema.names)}")
        kind = schema.field(image_column).type
        if not (
            pa.types.is_struct(kind) and "bytes" in {field.name for field in kind}
        ) and not pa.types.is_binary(kind):
            raise TruelikeError(
                f"{file}: column {image_column!r} must hold encoded images (bytes, path), found "
                f"{kind}"
            )
        return pq.read_table(file, columns=[image_column, label_column], memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise TruelikeError(f"{file}: not a readable parquet file ({error}); restore it") from None


def _has_path(table: pa.Table, column: str) -> bool:
    kind = table.schema.field(column).type
    return pa.types.is_struct(kind) and "path" in {field.name for field in kind}


def _usable(paths: list[str | None], rows: int) -> bool:
    return len(set(paths)) == rows and all(paths)


def _cell(table: pa.Table, column: str, row: int, file: Path) -> bytes:
    value = table[column][row].as_py()
    data = value["bytes"] if isinstance(value, dict) else value
    if not data:
        raise TruelikeError(
            f"{file}: row {row} has no image bytes; embed the images in the parquet file"
        )
    return data


def _class_names(schema: pa.Schema, label_column: str) -> list[str] | None:
    """The names of a ``ClassLabel`` column in the Hugging Face metadata, if there is one."""
    metadata: dict[str, Any] = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return metadata.get("info", {}).get("features", {}).get(label_column, {}).get("names")


def _name_of(label: Any, names: list[str], place: str) -> str:
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    if label in names:
        return str(label)
    raise TruelikeError(
        f"{place}: label {label!r} is none of the {len(names)} classes {', '.join(names[:10])}"
    )


def _split_of(file: Path) -> str:
    """The split that a parquet file's name (``train-00000-of-00001.parquet``) or its folder's says,
    else train.
    """
    for part in (file.name, *reversed(file.parts[:-1])):
        word = part.lower().split(".")[0].split("-")[0].split("_")[0]
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return "train"


def _open_hub(path: Path) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        data = HubData.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TruelikeError(
            f"{path}: must hold hub, revision, image_column and label_column: {problems}"
        ) from None
    if data.revision is None:
        print(
            f"{path}: no revision: {data.hub} may change under you; pin it to a commit",
            file=sys.stderr,
        )
    try:
        folder = snapshot_download(
            data.hub,
            repo_type="dataset",
            revision=data.revision,
            allow_patterns=["*.parquet", "**/*.parquet"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TruelikeError(
            f"{path}: cannot download {data.hub} at {data.revision or 'main'}: {error}"
        ) from None
    files = sorted(Path(folder).rglob("*.parquet"))
    if not files:
        raise TruelikeError(
            f"{path}: {data.hub} has no parquet files; try `revision: refs/convert/parquet`"
        )
    return _open_parquet(Path(folder), files, data.image_column, data.label_column)

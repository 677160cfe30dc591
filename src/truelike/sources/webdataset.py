"""A source of WebDataset tar archives: per image ``KEY.jpg`` and its label in ``KEY.cls`` or
``KEY.json``.
"""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from truelike.runtime.errors import TruelikeError
from truelike.sources.decode import PICTURES
from truelike.sources.labels import Labels, join, whole_numbers
from truelike.sources.parquet import unique_sources
from truelike.sources.settings import Reading
from truelike.sources.source import Record, Source, Tree, left_out_files, listed

CLASS_FILE, JSON_FILE = "cls", "json"
MAX_LABEL_BYTES = 2**20


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


def read_webdataset(tree: Tree, splits: dict[str, str], settings: Reading, section: str) -> Source:
    """Read the tar archives of `tree`, whose splits are given; nothing is unpacked, images are read
    by their offset.

    ``image_column`` names the extension of the images where a key has several, ``label_column`` the
    entry of the JSON (``label`` by default). Raises TruelikeError for an archive that cannot be
    read or a key with two images.
    """
    images: dict[str, list[_Member]] = {}
    labels, unused = [], []
    for name in splits:
        file = tree.root / name
        found, label_members, others = _index(file, settings, section)
        images[name] = [found[key] for key in found]
        unused += [f"{name}/{other}" for other in others]
        values = _labels(file, list(found), label_members, settings)
        places = [f"{file}: {member.name}" for member in images[name]]
        labels.append(Labels(str(file), values, None, places.__getitem__))
    if not any(value is not None for file in labels for value in file.values):
        raise TruelikeError(
            f"{section}.source: {tree.root}: no image in {listed(list(splits), 3)} has a label in "
            f"KEY.{CLASS_FILE} or KEY.{JSON_FILE}; name the entry of the JSON with "
            f"{section}.label_column, or unpack archives of a folder"
        )
    joined, class_names = join(labels, section, settings.skip_unlabelled)
    sources = unique_sources(
        {name: [member.name for member in images[name]] for name in images}, splits
    )
    records = [
        Record(
            splits[name],
            class_name,
            sources[name][row],
            partial(_read, tree.root / name, images[name][row]),
        )
        for name, names in zip(images, joined, strict=True)
        for row, class_name in enumerate(names)
        if class_name is not None
    ]
    unlabelled = sum(len(names) for names in joined) - len(records)
    notes = [f"left out {unlabelled:,} images without a label"] if unlabelled else []
    return Source(class_names, records, (*notes, *left_out_files(unused)))


def _index(
    file: Path, settings: Reading, section: str
) -> tuple[dict[str, _Member], dict[str, _Member], list[str]]:
    """The image of each key, the members that may hold labels by ``KEY.EXTENSION``, and the names
    of the others.
    """
    images: dict[str, _Member] = {}
    labels: dict[str, _Member] = {}
    others = []
    try:
        with tarfile.open(file, "r:") as archive:
            _check_end(archive, file)
            for entry in archive:
                if entry.isdir():
                    continue
                path = PurePosixPath(entry.name)
                stem, _, extension = path.name.partition(".")
                key, member = (
                    str(path.parent / stem),
                    _Member(entry.name, entry.offset_data, entry.size),
                )
                wanted = (
                    f".{extension}" == f".{settings.image_column}"
                    if settings.image_column
                    else _pictures(path)
                )
                if not entry.isreg() or path.name.startswith("."):
                    others.append(entry.name)
                elif wanted:
                    if key in images:
                        raise TruelikeError(
                            f"{file}: {key!r} has two images, {images[key].name} and {entry.name}; "
                            f"name the extension of the one to use with {section}.image_column, "
                            "such as jpg"
                        )
                    images[key] = member
                elif extension in (CLASS_FILE, JSON_FILE):
                    labels[f"{key}.{extension}"] = member
                else:
                    others.append(entry.name)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise TruelikeError(f"{file}: not a readable tar archive ({error}); restore it") from None
    others += [
        member.name for key, member in labels.items() if key.rpartition(".")[0] not in images
    ]
    return images, labels, others


def _check_end(archive: tarfile.TarFile, file: Path) -> None:
    """Raise ValueError for an archive that is cut short, or that goes on after its end."""
    members = archive.getmembers()
    last = max((entry.offset_data + entry.size for entry in members), default=0)
    end = -(-last // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    with file.open("rb") as stream:
        stream.seek(end)
        if len(block := stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise ValueError("it is cut short")
        while block:
            if block.strip(b"\0"):
                raise ValueError("something follows its end: several archives in one file?")
            block = stream.read(2**20)


def _pictures(path: PurePosixPath) -> bool:
    return path.suffix.lower() in PICTURES


def _labels(
    file: Path, keys: Sequence[str], members: dict[str, _Member], settings: Reading
) -> list[Any]:
    """The label of every key: the text of its ``.cls``, or an entry of its ``.json``; None without
    one.
    """
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    with file.open("rb") as stream:
        for key in keys:
            member = (
                members.get(f"{key}.{CLASS_FILE}")
                if settings.label_column in (None, CLASS_FILE)
                else None
            )
            member = member or members.get(f"{key}.{JSON_FILE}")
            if member is None:
                continue
            if member.size > MAX_LABEL_BYTES:
                raise TruelikeError(
                    f"{file}: {member.name} has {member.size:,} bytes, too many for a label"
                )
            stream.seek(member.offset)
            data = stream.read(member.size)
            try:
                if member.name.endswith(f".{CLASS_FILE}"):
                    texts[key] = data.decode().strip()
                else:
                    content = json.loads(data)
                    values[key] = _entry(content, settings.label_column)
            except ValueError as error:
                raise TruelikeError(
                    f"{file}: {member.name} is no label ({error}); repair it"
                ) from None
    values |= dict(zip(texts, whole_numbers(list(texts.values())), strict=True))
    return [values.get(key) for key in keys]


def _entry(content: Any, column: str | None) -> Any:
    """The label in the JSON of an image; by default its class's name, where it has one."""
    columns = (column,) if column else ("class_name", "label")
    found = [content[name] for name in columns if isinstance(content, dict) and name in content]
    return found[0] if found else None


def _read(file: Path, member: _Member) -> bytes:
    with file.open("rb") as stream:
        stream.seek(member.offset)
        return stream.read(member.size)

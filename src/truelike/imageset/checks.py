"""What an image set must be before anything in it is believed: it may come from someone else, or
from a bad disk.

Nothing here unpacks an archive, follows a name out of the set's directory, or loads a pickle.
"""

import io
import json
import re
import struct
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import sha256

SUMS_FILE = "SHA256SUMS"
CLASS_NAMES = b"class_names"
TEXTS = ("key", "class_name", "sha256", "shard")
NUMBERS = ("label", "width", "height", "offset", "length")
STORAGE_COLUMNS = ("width", "height", "sha256", "shard", "offset", "length")
MAX_PIXELS = 2**26
MAX_PNG_BYTES = 2**29
MAX_JSON_BYTES = 2**20
MAX_SHARD_BYTES = 2**40
MAX_INDEX_BYTES = 2**33
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DVC_OBJECT = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")
ADVICE = "this is no image set of truelike's, or it was changed: get it again, or do not use it"


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a set; raises TruelikeError if it is missing, no regular file, or a link not
    into DVC's cache.
    """
    if path.is_symlink() and not DVC_OBJECT.search(path.resolve().as_posix()):
        raise TruelikeError(f"{path}: is a link to {path.readlink()}, not a file; {ADVICE}")
    if not path.is_file():
        what = (
            "is not a regular file"
            if path.exists()
            else "is missing; run `dvc checkout` or `dvc pull`"
        )
        raise TruelikeError(f"{path}: {'shard' if path.suffix == '.tar' else 'file'} {what}")
    return path.open("rb")


def read_index(data: bytes, name: str) -> tuple[pd.DataFrame, list[str]]:
    """Read ``index.parquet``: its rows, checked one by one, and the class names; `name` is what
    errors call it.

    Raises TruelikeError that names the first row whose key, label, shard, size or place is
    impossible.
    """
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
        schema = parquet.schema_arrow
        class_names = json.loads((schema.metadata or {})[CLASS_NAMES])
        batches, size = [], 0
        for batch in parquet.iter_batches(4096):
            size += batch.nbytes
            if size > MAX_INDEX_BYTES:
                raise TruelikeError(
                    f"{name}: decodes to more than {MAX_INDEX_BYTES:,} bytes; {ADVICE}"
                )
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
        rows = table.replace_schema_metadata(None).to_pandas()
    except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError, MemoryError) as error:
        raise TruelikeError(
            f"{name}: not the index of an image set ({error}); run `dvc checkout`"
        ) from None
    if not isinstance(class_names, list) or not all(isinstance(item, str) for item in class_names):
        raise TruelikeError(f"{name}: the class names are not a list of words; {ADVICE}")
    _check_columns(table, name)
    if len(rows):
        _check_rows(rows, class_names, name)
    return rows, class_names


def _check_columns(table: pa.Table, name: str) -> None:
    absent = [column for column in (*TEXTS, *NUMBERS) if column not in table.column_names]
    if absent or len(set(table.column_names)) < table.num_columns:
        raise TruelikeError(
            f"{name}: lacks the column {absent[0]!r}, or has one twice; {ADVICE}"
            if absent
            else f"{name}: has a column twice; {ADVICE}"
        )
    if not table.num_rows:
        return
    for column in (*TEXTS, *NUMBERS):
        kind, is_text = table.schema.field(column).type, column in TEXTS
        right = (
            pa.types.is_string(kind) or pa.types.is_large_string(kind)
            if is_text
            else pa.types.is_integer(kind)
        )
        if not right or table[column].null_count:
            wanted = "text" if is_text else "whole numbers"
            raise TruelikeError(
                f"{name}: column {column!r} must hold {wanted} in every row, found {kind}; {ADVICE}"
            )


def _check_rows(rows: pd.DataFrame, class_names: Sequence[str], name: str) -> None:
    classes = pd.Series(class_names, dtype=object)
    known = rows["label"].between(0, len(classes) - 1)
    named = classes.reindex(rows["label"].where(known, -1)).to_numpy()
    sizes = rows["width"].between(1, MAX_PIXELS) & rows["height"].between(1, MAX_PIXELS)
    pixels = rows["width"].astype(float) * rows["height"].astype(float)
    rules: list[tuple[str, str, Any]] = [
        (
            "key",
            "must be 1 to 90 letters, digits, - and _",
            rows["key"].str.fullmatch(r"[A-Za-z0-9_-]{1,90}"),
        ),
        ("key", "must not be there twice", ~rows["key"].duplicated()),
        ("label", f"must be from 0 to {len(classes) - 1}", known),
        ("class_name", "must be the name of its label", rows["class_name"].to_numpy() == named),
        (
            "shard",
            "must be named like shard-00000.tar",
            rows["shard"].str.fullmatch(r"shard-[0-9]{5}\.tar"),
        ),
        ("sha256", "must be 64 hexadecimal digits", rows["sha256"].str.fullmatch(r"[0-9a-f]{64}")),
        (
            "width",
            f"must be from 1, and times height at most {MAX_PIXELS:,} pixels",
            sizes & (pixels <= MAX_PIXELS),
        ),
        (
            "length",
            f"must be from 1 to {MAX_PNG_BYTES:,} bytes",
            rows["length"].between(1, MAX_PNG_BYTES),
        ),
        (
            "offset",
            "must be a block of a shard",
            rows["offset"].between(512, MAX_SHARD_BYTES) & (rows["offset"] % 512 == 0),
        ),
    ]
    for column, rule, good in rules:
        good = np.asarray(good, dtype=bool)
        if not good.all():
            row = int(good.argmin())
            raise TruelikeError(
                f"{name}: row {row}: {column} {rule}, found {rows[column].iloc[row]!r}; {ADVICE}"
            )


def decode_png(data: bytes, width: int, height: int, name: str) -> np.ndarray:
    """Decode one stored image, uint8 (height, width, 3); raises TruelikeError if it is not the PNG
    that was promised.

    The size in the file's header is compared before anything is decompressed.
    """
    found = (
        struct.unpack(">II", data[16:24])
        if data.startswith(PNG_SIGNATURE) and len(data) > 24
        else None
    )
    if found != (width, height):
        size = f"{found[0]} x {found[1]} pixels" if found else "no PNG"
        raise TruelikeError(f"{name}: is {size}, the index promises {width} x {height}; {ADVICE}")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise TruelikeError(f"{name}: cannot be decoded ({error}); {ADVICE}") from None


def metadata(columns: dict[str, Any]) -> bytes:
    """The content of an image's ``KEY.json``."""
    return json.dumps(columns, ensure_ascii=False, sort_keys=True).encode()


def archive_problems(shard: Path, rows: pd.DataFrame) -> Iterator[str]:
    """Compare the members of a tar archive with its index rows, a line per problem; only what is
    expected is read.
    """
    expected = {f"{key}.{suffix}" for key in rows["key"] for suffix in ("json", "png")}
    seen: dict[str, bytes] = {}
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.type != tarfile.REGTYPE:
                    yield f"{shard}: {member.name!r} is a link or special file; {ADVICE}"
                elif member.name not in expected:
                    yield f"{shard}: {member.name!r} is not in the index; {ADVICE}"
                elif member.name in seen:
                    yield f"{shard}: {member.name!r} is there twice; {ADVICE}"
                elif member.name.endswith(".json") and member.size > MAX_JSON_BYTES:
                    yield f"{shard}: {member.name!r} has {member.size:,} bytes; {ADVICE}"
                else:
                    is_json = member.name.endswith(".json")
                    seen[member.name] = (
                        cast(IO[bytes], archive.extractfile(member)).read() if is_json else b""
                    )
    except (tarfile.TarError, OSError, ValueError, TruelikeError) as error:
        yield f"{shard}: not a sound tar archive ({error})"
        return
    if missing := sorted(expected - set(seen)):
        yield f"{shard}: lacks {len(missing)} of {len(expected)} files, the first is {missing[0]!r}"
    for row in rows.to_dict("records"):
        stored = {
            str(n): None if pd.isna(value) else value
            for n, value in row.items()
            if n not in STORAGE_COLUMNS
        }
        if seen.get(f"{row['key']}.json", metadata(stored)) != metadata(stored):
            yield f"{shard}: the JSON of image {row['key']!r} does not match the index"


def write_sums(path: Path, files: Iterable[Path]) -> None:
    """Write the sha256 of whole files, in the format of ``sha256sum``."""
    path.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in files), encoding="utf-8")


def listed_sums(sums: bytes) -> dict[str, str]:
    """The sha256 of each file that the content of ``SHA256SUMS`` lists."""
    lines = (line.partition("  ") for line in sums.decode(errors="replace").splitlines())
    return {listed: digest for digest, _, listed in lines}


def sum_problems(folder: Path, names: set[str]) -> Iterator[str]:
    """Compare the files of a set with ``SHA256SUMS``, which must list just `names`; a line per
    problem.
    """
    try:
        with open_regular(folder / SUMS_FILE) as file:
            text = file.read(MAX_JSON_BYTES).decode()
    except (TruelikeError, UnicodeDecodeError) as error:
        yield (
            str(error)
            if isinstance(error, TruelikeError)
            else f"{folder / SUMS_FILE}: not text ({error})"
        )
        return
    lines = listed_sums(text.encode())
    if set(lines) != names or text != "".join(
        f"{digest}  {name}\n" for name, digest in lines.items()
    ):
        yield f"{folder / SUMS_FILE}: does not list just the files of the index"
    for name in sorted(names & set(lines)):
        path = folder / name
        if path.is_file() and sha256(path) != lines[name]:
            yield f"{path}: does not match its sha256 in {SUMS_FILE}"
    for extra in sorted({path.name for path in folder.iterdir()} - names - {SUMS_FILE}):
        yield f"{folder / extra}: is not in the index; remove it"

"""Sets from someone else or from a bad disk: refused by name before they do harm, every damaged
byte found.
"""

import hashlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from truelike.imageset import checks
from truelike.imageset.checks import CLASS_NAMES, SUMS_FILE, write_sums
from truelike.imageset.reading import INDEX_FILE, ImageSet, verify
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.sharing.export import export

NAMES = ["boot", "bag"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound set of six images in two shards."""
    draw = np.random.default_rng(0)
    samples = [
        Sample(f"k{n}", n % 2, draw.integers(0, 256, (4, 5, 3), dtype=np.uint8), {"seed": n})
        for n in range(6)
    ]
    write_image_set(tmp_path / "set", samples, NAMES, shard_size=3)
    return tmp_path / "set"


def seal(folder: Path) -> None:
    """What an attacker can do as well: make SHA256SUMS fit."""
    write_sums(folder / SUMS_FILE, [folder / INDEX_FILE, *sorted(folder.glob("shard-*.tar"))])


def rewrite_index(folder: Path, rows: pd.DataFrame, class_names: object = NAMES) -> None:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(
        table.replace_schema_metadata({CLASS_NAMES: json.dumps(class_names)}), folder / INDEX_FILE
    )
    seal(folder)


def replace_image(folder: Path, position: int, data: bytes, **cells: object) -> None:
    """Put other bytes in the place of an image, with a sha256 and a length that fit."""
    rows = ImageSet(folder).index
    shard = folder / rows["shard"].iloc[position]
    content = bytearray(shard.read_bytes())
    offset = int(rows["offset"].iloc[position])
    content[offset : offset + len(data)] = data
    shard.write_bytes(content)
    for name, value in {
        "sha256": hashlib.sha256(data).hexdigest(),
        "length": len(data),
        **cells,
    }.items():
        rows.loc[position, name] = value
    rewrite_index(folder, rows)


def test_every_one_of_1000_random_single_byte_corruptions_is_found(folder):
    assert verify(folder) == []
    draw = random.Random(0)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        SUMS_FILE,
        INDEX_FILE,
        "shard-00000.tar",
        "shard-00001.tar",
    ]
    for trial in range(1000):
        file = draw.choice(files)
        sound = file.read_bytes()
        place = draw.randrange(len(sound))
        damaged = bytearray(sound)
        damaged[place] ^= draw.randrange(1, 256)
        file.write_bytes(damaged)
        found = verify(folder)
        assert any(file.name in problem for problem in found), (
            f"trial {trial}: {file.name}, byte {place}: {found}"
        )
        file.write_bytes(sound)
    assert verify(folder) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "shard",
            "../../etc/passwd",
            "shard must be named like shard-00000.tar, found '../../etc/passwd'",
        ),
        ("shard", "/etc/passwd", "found '/etc/passwd'"),
        ("shard", "shard-00000.tar\n", "shard must be named"),
        ("key", "../../.bashrc", "key must be 1 to 90 letters"),
        ("key", "k1", "key must not be there twice"),
        ("key", "", "key must be 1 to 90 letters"),
        ("label", 2, "label must be from 0 to 1, found .*2"),
        ("label", -1, "label must be from 0 to 1"),
        ("class_name", "bag", "class_name must be the name of its label, found 'bag'"),
        ("sha256", "0" * 63, "sha256 must be 64"),
        ("width", 100_000, r"width must be .*at most 67,108,864 pixels"),
        ("width", 0, "width must be from 1"),
        ("height", -5, "width must be from 1"),
        ("length", 10**12, "length must be from 1 to"),
        ("length", 0, "length must be from 1 to"),
        ("offset", -512, "offset must be"),
        ("offset", 700, "offset must be"),
        ("offset", 2**50, "offset must be"),
        ("offset", 2**39, "shard is truncated at image 'k0'"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_file_and_value(folder, column, value, message):
    rows = ImageSet(folder).index
    rows.loc[0, column] = value
    if column == "width" and value == 100_000:
        rows.loc[0, "height"] = 100_000
    rewrite_index(folder, rows)
    with pytest.raises(TruelikeError, match=message) as error:
        ImageSet(folder).pixels(0)
    assert str(folder) in str(error.value)
    assert verify(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="offset"), "lacks the column 'offset'"),
        (
            lambda rows: rows.assign(offset=rows["offset"].astype(float)),
            "'offset' must hold whole numbers",
        ),
        (lambda rows: rows.assign(key=range(6)), "'key' must hold text"),
        (
            lambda rows: rows.assign(shard=[None, *rows["shard"][1:]]),
            "'shard' must hold text in every row",
        ),
    ],
)
def test_columns_that_cannot_be_are_refused(folder, change, message):
    rewrite_index(folder, change(ImageSet(folder).index))
    with pytest.raises(TruelikeError, match=message):
        ImageSet(folder)


def test_class_names_that_are_no_list_of_words_are_refused(folder):
    rows = ImageSet(folder).index
    for names in ({"0": "boot"}, [1, 2]):
        rewrite_index(folder, rows, names)
        with pytest.raises(TruelikeError, match="class names are not a list of words"):
            ImageSet(folder)


def test_an_index_that_decodes_to_too_much_is_refused(folder, monkeypatch):
    rows = ImageSet(folder).index
    rewrite_index(folder, rows.assign(prompt="x" * 100_000))
    assert (folder / INDEX_FILE).stat().st_size < 20_000
    monkeypatch.setattr(checks, "MAX_INDEX_BYTES", 500_000)
    with pytest.raises(TruelikeError, match=r"index\.parquet: decodes to more than 500,000 bytes"):
        ImageSet(folder)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_an_image_of_another_size_than_promised_is_refused_before_it_is_decompressed(folder):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = checks.PNG_SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    replace_image(folder, 1, bomb)
    message = r"shard-00000\.tar: image 'k1': is 60000 x 60000 pixels, the index promises 5 x 4"
    with pytest.raises(TruelikeError, match=message):
        ImageSet(folder).pixels(1)
    assert any("60000 x 60000" in problem for problem in verify(folder))


def test_what_is_no_png_is_refused_whatever_it_is(folder):
    replace_image(folder, 1, b"GIF89a\x05\x00\x04\x00" + bytes(40))
    with pytest.raises(TruelikeError, match="image 'k1': is no PNG"):
        ImageSet(folder).pixels(1)
    replace_image(
        folder,
        1,
        checks.PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 0)),
    )
    with pytest.raises(TruelikeError, match="image 'k1': cannot be decoded"):
        ImageSet(folder).pixels(1)


class Loaded:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def append(shard: Path, member: tarfile.TarInfo, data: bytes = b"") -> None:
    with tarfile.open(shard, "a") as archive:
        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("k9.png", tarfile.SYMTYPE, "'k9.png' is a link or special file"),
        ("k9.png", tarfile.LNKTYPE, "'k9.png' is a link or special file"),
        ("k9.png", tarfile.FIFOTYPE, "'k9.png' is a link or special file"),
        ("k9.png", tarfile.CHRTYPE, "'k9.png' is a link or special file"),
        ("../../evil.png", tarfile.REGTYPE, "'../../evil.png' is not in the index"),
        ("k0.pkl", tarfile.REGTYPE, "'k0.pkl' is not in the index"),
        ("k0.json", tarfile.REGTYPE, "'k0.json' is there twice"),
    ],
)
def test_verify_names_members_that_do_not_belong(folder, tmp_path, name, kind, message):
    data = pickle.dumps(Loaded(tmp_path / "loaded")) if kind == tarfile.REGTYPE else b""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
    append(folder / "shard-00000.tar", member, data)
    seal(folder)
    assert any(message in problem and "shard-00000.tar" in problem for problem in verify(folder))
    assert ImageSet(folder).load().shape == (6, 4, 5, 3)
    export(folder, tmp_path / "exported")
    assert len(list((tmp_path / "exported").rglob("*.png"))) == 6
    assert not (tmp_path / "loaded").exists()


def test_a_member_that_says_it_is_huge_is_not_read(folder):
    shard = folder / "shard-00000.tar"
    content = bytearray(shard.read_bytes())
    member = tarfile.TarInfo("k0.json")
    member.size = 2**40
    content[:512] = member.tobuf(tarfile.GNU_FORMAT)
    shard.write_bytes(content)
    seal(folder)
    assert any(
        "'k0.json' has 1,099,511,627,776 bytes" in p or "not a sound tar" in p
        for p in verify(folder)
    )


def test_a_pickled_column_is_never_loaded(folder, tmp_path):
    table = pq.read_table(folder / INDEX_FILE)
    payload = pickle.dumps(Loaded(tmp_path / "loaded"))
    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": payload,
    }
    cells = pa.array([payload] * len(table))
    table = table.append_column(pa.field("extra", pa.binary(), metadata=extension), cells)
    pq.write_table(table, folder / INDEX_FILE)
    seal(folder)
    assert len(ImageSet(folder)) == 6
    assert not (tmp_path / "loaded").exists()


def test_links_and_special_files_in_the_place_of_a_shard(folder, tmp_path):
    shard = folder / "shard-00001.tar"
    cached = tmp_path / "cache/files/md5/ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    shard.rename(cached)
    shard.symlink_to(cached)  # cache.type symlink: this is how DVC checks out
    assert ImageSet(folder).pixels(5).shape == (4, 5, 3)
    shard.unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(cached.read_bytes())
    shard.symlink_to(secret)
    with pytest.raises(TruelikeError, match=r"shard-00001\.tar: is a link to .*secret"):
        ImageSet(folder).png(5)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(TruelikeError, match=r"shard-00001\.tar: shard is not a regular file"):
        ImageSet(folder).png(5)
    assert any("shard-00001.tar" in problem for problem in verify(folder))


def test_files_beside_the_set_are_named(folder):
    (folder / "model.pkl").write_bytes(b"")
    assert verify(folder) == [f"{folder / 'model.pkl'}: is not in the index; remove it"]
    (folder / "model.pkl").unlink()
    (folder / SUMS_FILE).unlink()
    assert any("SHA256SUMS" in problem for problem in verify(folder))


def test_sums_are_those_of_coreutils(folder):
    import subprocess

    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", SUMS_FILE], cwd=folder, check=True
    )

"""Captions that a user wrote: which tables are read, how they are matched, and what is refused."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from truelike.captioning.captions import read_caption_file
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError

SOURCES = ["train/hat/0.png", "train/hat/Käse.png", "train/bag/1.png"]
CAPTIONS = ["a café – n°1", "two, three", 'a "hat"']


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    pixels = np.zeros((4, 4, 3), np.uint8)
    samples = [
        Sample(f"image-{number}", number % 2, pixels + number, {"split": "train", "source": source})
        for number, source in enumerate(SOURCES)
    ]
    write_image_set(tmp_path / "set", samples, ["hat", "bag"])
    return ImageSet(tmp_path / "set")


def table(by: str, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({by: names, "caption": CAPTIONS})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_of_any_line_end(images, tmp_path, encoding, line_end):
    path = tmp_path / "captions.csv"
    table("source", SOURCES).to_csv(path, index=False, encoding=encoding, lineterminator=line_end)
    assert read_caption_file(images, str(path))["caption"].tolist() == CAPTIONS


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("captions.csv", SOURCES),
        ("set/train/metadata.csv", ["hat/0.png", "hat/Käse.png", "bag/1.png"]),
        ("set/train/hat/metadata.csv", ["0.png", "Käse.png", "../bag/1.png"]),
        ("set/train/metadata.csv", ["./hat/0.png", "hat//Käse.png", "bag/1.png"]),
        ("set/metadata.jsonl", SOURCES),
    ],
)
def test_file_names_are_relative_to_the_table(images, tmp_path, place, names):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table("file_name", names).rename(columns={"caption": "text"})
    if place.endswith("csv"):
        rows.to_csv(path, index=False)
    else:
        path.write_text("\n".join(map(json.dumps, rows.to_dict("records"))))
    assert read_caption_file(images, str(path))["caption"].tolist() == CAPTIONS


def test_decomposed_names_are_found(images, tmp_path):
    path = tmp_path / "captions.parquet"
    table("source", [unicodedata.normalize("NFD", name) for name in SOURCES]).to_parquet(path)
    assert read_caption_file(images, str(path))["caption"].tolist() == CAPTIONS


def test_an_empty_key_column_is_passed_over(images, tmp_path):
    path = tmp_path / "captions.csv"
    table("source", SOURCES).assign(key="").to_csv(path, index=False)
    assert read_caption_file(images, str(path))["caption"].tolist() == CAPTIONS


def test_keys_that_look_like_numbers_stay_words(tmp_path):
    sample = Sample("00012", 0, np.zeros((4, 4, 3), np.uint8), {"source": "x/00012.png"})
    write_image_set(tmp_path / "set", [sample], ["x"])
    (tmp_path / "captions.csv").write_text("key,caption\n00012,1e5\n")
    found = read_caption_file(ImageSet(tmp_path / "set"), str(tmp_path / "captions.csv"))
    assert found["caption"].tolist() == ["1e5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.csv", "source,caption\na,café\n".encode("latin-1"), "is not UTF-8 .* at byte 20"),
        ("wide.csv", "source,caption\na,b\n".encode("utf-16"), "is not UTF-8"),
        ("empty.csv", b"", "it is empty"),
        ("header.csv", b"source,caption\n", "must have the columns .* not empty"),
        ("comma.csv", b"source,caption\nhat/0.png,a dog, a cat\n", "line 2 has 3 fields"),
        ("quote.csv", b'source,caption\na,"b\n', "cannot be read as a table"),
        ("zero.csv", b"source,caption\ntrain/hat/0.png,b\0c\n", "has control characters"),
        (
            "paths.csv",
            b"source,caption\ntrain\\hat\\0.png,x\n",
            r"no source in it is .* it has 'train\\\\hat\\\\0\.png', .* 'train/hat/0\.png'",
        ),
        ("bad.parquet", b"PAR1 no", "cannot be read as a table"),
        ("empty.parquet", b"", "cannot be read as a table"),
        ("empty.jsonl", b"\n", "it is empty"),
        ("bad.jsonl", b'{"source": "a"}\n{"sour', "line 2: "),
        ("list.jsonl", b"[1]\n", "line 1 must be an object"),
        ("tabs.tsv", b"source\tcaption\n", r"must be a \.csv, \.jsonl or \.parquet"),
        ("upper.csv", b"Source,Caption\na,b\n", "found Source, Caption"),
        ("semicolon.csv", b"source;caption\na;b\n", "found source;caption"),
        ("nowhere.csv", None, "no such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(images, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TruelikeError, match=rf"models\.captioner: .*{name}.*({message})"):
        read_caption_file(images, str(tmp_path / name))


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["a", "\u200b", "c"], "no caption for 1 of 3 images, the first is 'image-1'"),
        (["a", None, "c"], "no caption for 1 of 3 images, the first is 'image-1'"),
        ([["a", "b"], ["c"], ["d"]], r"the caption of 'train/hat/0\.png' must be a text"),
        ([1, 2, 3], r"the caption of 'train/hat/0\.png' must be a text, found 1"),
    ],
)
def test_captions_that_are_no_texts(images, tmp_path, captions, message):
    path = tmp_path / "captions.parquet"
    pd.DataFrame({"source": SOURCES, "caption": captions}).to_parquet(path)
    with pytest.raises(TruelikeError, match=message):
        read_caption_file(images, str(path))

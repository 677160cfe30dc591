"""Pictures whose classes a metadata table gives, in the way of the hub's image folders."""

import json
import unicodedata

import pandas as pd
import pytest

from tests.support.sources import data, folder, placed
from truelike.runtime.errors import TruelikeError
from truelike.sources.formats import open_source
from truelike.sources.source import description

PICTURES = ["images/0.png", "images/1.png", "images/2.png"]
CSV = "file_name,label,text\nimages/0.png,dog,a dog\nimages/1.png,cat,\nimages/2.png,dog,x\n"
EXPECTED = {
    "images/0.png": ("train", "dog"),
    "images/1.png": ("train", "cat"),
    "images/2.png": ("train", "dog"),
}


def write(root, files, text, name="metadata.csv", encoding="utf-8"):
    folder(root, files)
    (root / name).write_text(text, encoding=encoding)
    return root


def test_a_table_at_the_root(tmp_path):
    source = open_source(data(write(tmp_path, PICTURES, CSV)))
    assert source.class_names == ["cat", "dog"]
    assert placed(source) == EXPECTED
    assert source.notes == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_same_as_json_lines_or_parquet(tmp_path, encoding):
    rows = [{"file_name": name, "label": label} for name, (_, label) in EXPECTED.items()]
    lines = "\n".join(map(json.dumps, rows)) + "\n\n"
    write(tmp_path / "lines", PICTURES, lines, "metadata.jsonl", encoding)
    assert placed(open_source(data(tmp_path / "lines"))) == EXPECTED
    folder(tmp_path / "parquet", PICTURES)
    pd.DataFrame(rows).to_parquet(tmp_path / "parquet/metadata.parquet")
    assert placed(open_source(data(tmp_path / "parquet"))) == EXPECTED


def test_a_table_in_every_split(tmp_path):
    for split, label in (("train", "a"), ("test", "b")):
        text = f"file_name,label\n0.png,{label}\n1.png,c\n"
        write(tmp_path / split, ["0.png", "1.png"], text)
    with pytest.raises(TruelikeError, match="no train images of 'b'"):
        open_source(data(tmp_path))
    (tmp_path / "test/metadata.csv").write_text("file_name,label\n0.png,c\n1.png,a\n")
    assert placed(open_source(data(tmp_path))) == {
        "train/0.png": ("train", "a"),
        "train/1.png": ("train", "c"),
        "test/0.png": ("test", "c"),
        "test/1.png": ("test", "a"),
    }


SPLIT = "file_name,label,split\n0.png,a,{}\n1.png,b,{}\n2.png,a,{}\n3.png,b,{}\n"
FOUR = ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("train", "train", "test", "test"), ["train", "train", "test", "test"]),
        (("Training", "train", "dev", "val"), ["train", "train", "validation", "validation"]),
        (("left", "right", "", "0"), ["train"] * 4),
    ],
)
def test_a_column_of_splits(tmp_path, said, expected):
    root = write(tmp_path, FOUR, SPLIT.format(*said))
    assert [placed(open_source(data(root)))[name][0] for name in FOUR] == expected
    by_hand = data(root, splits={"train": "[01].png", "test": "[23].png"})
    found = [placed(open_source(by_hand))[name][0] for name in FOUR]
    assert found == ["train", "train", "test", "test"]


@pytest.mark.parametrize("odd", ["", "unlabelled", "train/test"])
def test_a_column_of_splits_that_says_none_in_a_row(tmp_path, odd):
    root = write(tmp_path, FOUR, SPLIT.format("train", "train", "test", odd))
    with pytest.raises(TruelikeError, match=r"metadata\.csv: 3\.png: the column 'split' says"):
        open_source(data(root))


def test_numbers_are_classes_in_their_order(tmp_path):
    text = "file_name,label\nimages/0.png,10\nimages/1.png,9\nimages/2.png,10\n"
    assert open_source(data(write(tmp_path, PICTURES, text))).class_names == ["9", "10"]


def test_columns_can_be_named(tmp_path):
    text = CSV.replace("file_name", "path").replace("label", "breed")
    write(tmp_path, PICTURES, text)
    message = r"(?s)two or more classes, found images.*no labels in 'metadata\.csv': no columns"
    with pytest.raises(TruelikeError, match=message):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, image_column="path", label_column="breed"))
    assert placed(source) == EXPECTED
    with pytest.raises(TruelikeError, match=r"metadata\.csv: no column 'bread', found path, breed"):
        open_source(data(tmp_path, image_column="path", label_column="bread"))


def test_a_table_of_captions_alone_leaves_the_classes_to_the_folders(tmp_path):
    write(tmp_path, ["a/1.png", "b/2.png"], "file_name,text\na/1.png,x\nb/2.png,y\n")
    source = open_source(data(tmp_path))
    assert source.class_names == ["a", "b"]
    assert "no labels in 'metadata.csv': no columns file_name and label" in description(source)


def test_splits_by_hand_and_classes_by_table(tmp_path):
    write(tmp_path, PICTURES, CSV)
    splits = {"train": ["images/0.png", "images/1.png"], "test": "images/[2-9].png"}
    with pytest.raises(TruelikeError, match="no test images of 'cat'"):
        open_source(data(tmp_path, splits=splits))
    splits = {"train": "images/[01].png"}
    assert len(open_source(data(tmp_path, splits=splits)).records) == 2


def test_decomposed_names(tmp_path):
    files = [unicodedata.normalize("NFD", "Käse.png"), "b.png"]
    source = open_source(data(write(tmp_path, files, "file_name,label\nKäse.png,x\nb.png,y\n")))
    assert placed(source) == {"Käse.png": ("train", "x"), "b.png": ("train", "y")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV + "images/9.png,dog,\n", r"1 pictures are listed but not there: .*images/9\.png"),
        (CSV + "images/0.png,cat,\n", r"'images/0\.png' listed twice"),
        (CSV.replace("1.png,cat", "1.png,"), r"1 images have no label.*images/1\.png"),
        (CSV.replace("images/1.png,cat,\n", ""), r"1 images have no label.*images/1\.png"),
        ("", r"metadata\.csv: cannot be read as a table: it is empty"),
        ("file_name,label\nimages/0.png,a,b\n", r"line 2 has 3 fields, the header 2"),
        ("file_name,label,label\n", "line 1 names a column twice"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(TruelikeError, match=message):
        open_source(data(write(tmp_path, PICTURES, text)))


def test_what_does_not_fit_is_left_out_on_request(tmp_path):
    text = CSV.replace("1.png,cat", "1.png,") + "images/9.png,cat,\n"
    settings = data(write(tmp_path, [*PICTURES, "3.png"], text), skip_unlabelled=True)
    with pytest.raises(TruelikeError, match="listed but not there"):
        open_source(settings)
    text = CSV.replace("2.png,dog", "2.png,")
    write(tmp_path, PICTURES, text + "images/9.png,cat,\n")
    source = open_source(settings.model_copy(update={"skip_bad": True}))
    assert set(placed(source)) == {"images/0.png", "images/1.png"}
    assert "left out 2 pictures without a label" in description(source)
    assert "left out 1 pictures that are listed but not there" in description(source)


def test_another_encoding_is_named(tmp_path):
    write(tmp_path, PICTURES, CSV.replace("a dog", "café"), encoding="latin-1")
    with pytest.raises(TruelikeError, match=r"data\.source: .*metadata\.csv: is not UTF-8"):
        open_source(data(tmp_path))

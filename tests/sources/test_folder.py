"""Folders of pictures: which folders are splits, which are classes, and what is refused."""

import os
import unicodedata

import pytest

from tests.support.sources import data, folder, grid, placed, png
from truelike.runtime.errors import TruelikeError
from truelike.sources.formats import open_source, read_source
from truelike.sources.layout import named_splits
from truelike.sources.source import description

TWO_SPLITS = {("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")}


def found(root, **changes):
    return placed(open_source(data(root, **changes)))


def test_folder_of_class_folders(tmp_path):
    root = folder(tmp_path, ["wet dog/a.PNG", "wet dog/deep/b.jpeg", "Käse/c.webp"])
    folder(root, ["wet dog/notes.txt", "Käse/.DS_Store", "licence.pdf"])
    source = open_source(data(root))
    assert source.class_names == ["Käse", "wet dog"]
    assert placed(source) == {
        "wet dog/a.PNG": ("train", "wet dog"),
        "wet dog/deep/b.jpeg": ("train", "wet dog"),
        "Käse/c.webp": ("train", "Käse"),
    }
    assert source.records[0].read() == png(2)
    assert "left out 2 other files (1 .pdf, 1 .txt)" in description(source)
    assert "left out 1 hidden files" in description(source)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("train", "eval"),
        ("TRAIN", "Evaluation"),
        ("seg_train", "seg_test"),
        ("train2017", "test2017"),
        ("TrainSet", "TestSet"),
        ("my-train.1", "my-test.1"),
        ("trainset", "test_images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_split_folders_by_any_usual_name(tmp_path, train, test):
    assert set(found(folder(tmp_path, grid([train, test]))).values()) == TWO_SPLITS


@pytest.mark.parametrize("name", ["validation", "valid", "Val", "dev"])
def test_validation_folders(tmp_path, name):
    assert {split for split, _ in found(folder(tmp_path, grid(["train", name]))).values()} == {
        "train",
        "validation",
    }


def test_words_that_only_begin_like_a_split_are_none():
    for name in ("trainer", "testudo", "valley", "device", "medieval", "contest", "Ätest"):
        assert named_splits(name) == set()
    assert named_splits("trainval") == named_splits("train_val") == {"train", "validation"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (grid(["train", "Train"]), "'Train', 'train' all say train"),
        (
            grid(["train", "val", "valid"]),
            r"all say validation(?s:.*)validation: \['val', 'valid'\]",
        ),
        (grid(["train", "extra"]), "'train' may be splits or classes"),
        (grid(["train", "test", "extra"]), "'test', 'train' may be splits or classes"),
        (grid(["trainval", "test"]), "may be splits or classes"),
        (["bus/1.png", "plane/2.png", "train/steam/3.png", "train/new/4.png"], "'train' may be"),
        (["a/1.png", "train/2.png", "test/3.png"], "'test', 'train' may be splits or classes"),
        (["train/1.png", "test/2.png"], "'test', 'train' may be splits or classes"),
        (["train/a/1.png", "train/b/2.png", "test/3.png"], "1 test pictures lie in no class"),
        (["a/1.png", "b/2.png", "cover.png"], "1 pictures lie in no class folder.*cover"),
        (["1.png", "2.png"], "2 pictures lie in no class folder"),
        (grid(["set/train", "set/test"]), "'set/test/a/1.png' would be train, of class 'set'"),
        (["a/train/1.png", "a/test/2.png", "b/train/3.png"], "'a/test/2.png' would be train"),
        (
            ["a/train/1.png", "a/test/2.png", "b/train/3.png", "b/test/4.png"],
            r"(?s)so which are classes\?.*set data\.splits, such as "
            r"{test: '\*/test', train: '\*/train'}",
        ),
        (["train/a/test/1.png", "train/b/2.png"], "'train/a/test/1.png' would be train"),
        (grid(["amazon", "webcam"]), "'amazon' and 'webcam' hold the same folders 'a', 'b'"),
        (grid(["data/train", "data/test"]), r"(?s)would be train.*data\.source: \S+/data if"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_the_tree(tmp_path, files, message):
    with pytest.raises(TruelikeError, match=message) as error:
        open_source(data(folder(tmp_path, files)))
    assert f"found in {tmp_path}:" in str(error.value)
    assert " .png" in str(error.value)


@pytest.mark.parametrize(
    ("files", "splits", "expected"),
    [
        (
            grid(["train", "val", "valid"]),
            {"train": "train", "validation": ["val", "valid"]},
            {("train", "a"), ("train", "b"), ("validation", "a"), ("validation", "b")},
        ),
        (
            ["bus/1.png", "train/steam/2.png", "train/new/3.png"],
            {"train": "*"},
            {("train", "bus"), ("train", "train")},
        ),
        (
            ["a/train/1.png", "a/test/2.png", "b/train/3.png", "b/test/4.png"],
            {"train": "*/train", "test": "*/test"},
            TWO_SPLITS,
        ),
        (
            ["a/train_1.png", "a/test_2.png", "b/train_3.png", "b/test_4.png"],
            {"train": "*/train_*", "test": "*/test_*.png"},
            TWO_SPLITS,
        ),
        (
            grid(["site1", "site2", "site3"]),
            {"train": "site[12]", "test": "site3"},
            TWO_SPLITS,
        ),
        (
            grid(["set/train", "set/test"]),
            {"train": "set/train/", "test": "./set/test"},
            TWO_SPLITS,
        ),
        (["a/1.png", "b/2.png"], {"train": "."}, {("train", "a"), ("train", "b")}),
    ],
)
def test_splits_by_hand(tmp_path, files, splits, expected):
    assert set(found(folder(tmp_path, files), splits=splits).values()) == expected


def test_what_hand_made_splits_do_not_name_is_left_out_and_counted(tmp_path):
    root = folder(tmp_path, [*grid(["train", "pred"]), "cover.png"])
    source = open_source(data(root, splits={"train": "train/*"}))
    assert len(source.records) == 2
    assert "left out 3 other files (3 .png), the first is cover.png" in description(source)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "trian"}, "data.splits: train: 'trian' names no file"),
        ({"train": "train", "test": "train/a"}, "'train/a/1.png' is in train and test"),
        ({"train": ".", "test": "test"}, "is in train and test"),
        ({"test": "test"}, "has no training images"),
        ({"train": "train/a"}, "'train/a/1.png' is train but lies in no class folder"),
    ],
)
def test_splits_by_hand_that_fit_nothing(tmp_path, splits, message):
    with pytest.raises(TruelikeError, match=message):
        open_source(data(folder(tmp_path, grid(["train", "test"])), splits=splits))


def test_a_class_may_be_called_like_a_split(tmp_path):
    root = folder(tmp_path, ["bus/1.png", "plane/2.png", "bicycle/3.png", "train/4.png"])
    source = open_source(data(root))
    assert source.class_names == ["bicycle", "bus", "plane", "train"]
    assert "taken as classes: 'train'" in description(source)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.png"], "two or more classes, found a"),
        (["a/deep/1.png", "a/down/2.png"], r"found a; did you mean data\.source: \S+/a\?"),
        ([], "no pictures, parquet files or tar archives"),
        (["a/1.txt"], r"(?s)no pictures.*a/: 1 \.txt"),
        (["train/a/1.png", "train/b/1.png", "test/a/2.png"], "no test images of 'b'"),
        ([*grid(["train", "test"]), "test/c/2.png"], "no train images of 'c'"),
        (grid(["test"]), "has no training images"),
    ],
)
def test_folders_that_cannot_be_learned_from(tmp_path, files, message):
    with pytest.raises(TruelikeError, match=message):
        open_source(data(folder(tmp_path, files)))


def test_a_class_without_images_is_refused_or_left_out_on_request(tmp_path):
    folder(tmp_path, ["a/1.png", "b/1.png", "empty one/notes.txt"])
    with pytest.raises(TruelikeError, match=r"no train images of 'empty one'.*data\.skip_unused"):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, skip_unused=True))
    assert source.class_names == ["a", "b"]
    assert "left out 1 classes without images: 'empty one'" in description(source)


@pytest.mark.parametrize("name", ["two\nlines", "tab\t", " "])
def test_class_names_that_cannot_be_shown(tmp_path, name):
    with pytest.raises(TruelikeError, match="is blank or has control characters"):
        open_source(data(folder(tmp_path, ["a/1.png", f"{name}/2.png"])))


@pytest.mark.parametrize("name", ["cat ", " cat", "cat\u00a0", "cat\u200b", "\ufeffcat"])
def test_class_names_that_look_the_same(tmp_path, name):
    with pytest.raises(TruelikeError, match=r"the class names .* look the same"):
        open_source(data(folder(tmp_path, ["cat/1.png", "dog/2.png", f"{name}/3.png"])))


@pytest.mark.parametrize("place", ["a/.cache/", "a/deep/.trash/", "__MACOSX/a/", ".hidden/c/"])
def test_hidden_folders_are_left_out_at_any_depth(tmp_path, place):
    source = open_source(data(folder(tmp_path, ["a/1.png", "b/2.png", f"{place}3.png"])))
    assert set(placed(source)) == {"a/1.png", "b/2.png"}
    assert "hidden" in description(source)


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    folder(tmp_path, ["real/cats/1.png", "real/more/2.png", "set/dogs/3.png"])
    for link, target in (("cats", "real/cats"), ("dogs/batch2", "real/more"), ("dogs/loop", "set")):
        (tmp_path / "set" / link).symlink_to(tmp_path / target)
    source = open_source(data(tmp_path / "set"))
    assert set(placed(source)) == {"cats/1.png", "dogs/3.png", "dogs/batch2/2.png"}
    assert "'dogs/loop/'" in description(source)


@pytest.mark.parametrize("link", ["cats", "dogs/batch2", "v1.0"])
def test_links_that_lead_nowhere_are_named(tmp_path, link):
    folder(tmp_path, ["dogs/1.png", "birds/2.png"])
    (tmp_path / link).symlink_to(tmp_path / "gone")
    with pytest.raises(TruelikeError, match=f"links to nothing: '{link}'"):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, splits={"train": "*/*.png"}))
    assert source.class_names == ["birds", "dogs"]


def test_packed_files_are_named(tmp_path):
    (tmp_path / "train.tar.gz").write_bytes(b"x")
    with pytest.raises(TruelikeError, match=r"(?s)no pictures.*unpack 'train\.tar\.gz'"):
        open_source(data(tmp_path))


def test_a_pipe_is_not_read(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    os.mkfifo(tmp_path / "a/pipe.png")
    source = open_source(data(tmp_path))
    assert set(placed(source)) == {"a/1.png", "b/2.png"}
    assert "'a/pipe.png': no regular files" in description(source)


def test_names_that_are_not_utf8_are_named(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / os.fsdecode(b"a/caf\xe9.png")).write_bytes(png())
    with pytest.raises(TruelikeError, match=r"the name of 'a/caf\\udce9\.png' is not UTF-8"):
        open_source(data(tmp_path))


def test_decomposed_names_are_the_same_class(tmp_path):
    root = folder(
        tmp_path,
        ["train/Ka\u0308se/a.png", "test/K\u00e4se/b.png", "train/b/c.png", "test/b/d.png"],
    )
    assert open_source(data(root)).class_names == ["K\u00e4se", "b"]


def test_composed_and_decomposed_twins_are_two_images(tmp_path):
    twins = [unicodedata.normalize(form, "a/Käse.png") for form in ("NFC", "NFD")]
    source = open_source(data(folder(tmp_path, [*twins, "b/Bär.png"])))
    assert set(placed(source)) == {*twins, "b/Bär.png"}
    assert {record.read() for record in source.records} == {png(0), png(1), png(2)}


def test_settings_for_tables_are_refused(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    with pytest.raises(TruelikeError, match=r"data\.config: .* has no configurations"):
        open_source(data(tmp_path, config="x"))
    with pytest.raises(TruelikeError, match="has its classes in folders, not in a table"):
        open_source(data(tmp_path, label_column="x"))


def test_a_folder_with_other_tables_is_a_folder_of_pictures(tmp_path):
    import pandas as pd

    folder(tmp_path, ["a/1.png", "b/2.png"])
    pd.DataFrame({"source": ["a/1.png"], "caption": ["x"]}).to_parquet(
        tmp_path / "captions.parquet"
    )
    source = open_source(data(tmp_path))
    assert source.class_names == ["a", "b"]
    assert "1 .parquet" in description(source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere is not there"),
        ("set.zip", r"is a \.zip file, not a folder; unpack it"),
        ("labels.csv", r"is a \.csv file, not a folder"),
        ("train.parquet", r"is a \.parquet file, not a folder; give the folder that holds it"),
        ("train.tar", r"is a \.tar file, not a folder; give the folder that holds it"),
    ],
)
def test_sources_that_are_no_folders(tmp_path, name, message):
    if name != "nowhere":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(TruelikeError, match=rf"ood\.x\.source: .*{message}"):
        read_source(data(tmp_path / name), "ood.x")

"""Parquet files: labels joined by name over all of them, and which file is of which split."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.sources import data, folder, parquet, placed, png
from truelike.runtime.errors import TruelikeError
from truelike.sources.formats import open_source, read_source
from truelike.sources.source import description

CAT_DOG, DOG_CAT = ["cat", "dog"], ["dog", "cat"]


def classes(source):
    """The class of every image, by its bytes."""
    return {record.read(): record.class_name for record in source.records}


def test_class_names_and_paths(tmp_path):
    names = ["2", "1"]  # a label is an index, whatever the names look like
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [0, 1], names, ["x.png", "y.png"])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [1, 0], names)
    source = open_source(data(tmp_path))
    assert source.class_names == names
    assert placed(source) == {
        "train/x.png": ("train", "2"),
        "train/y.png": ("train", "1"),
        "data/test-00000-of-00001.parquet/00000000": ("test", "1"),
        "data/test-00000-of-00001.parquet/00000001": ("test", "2"),
    }
    assert source.records[2].read() == png(0)


def test_every_file_numbers_its_classes_itself(tmp_path):
    parquet(tmp_path / "train-0.parquet", [0, 1], CAT_DOG)
    parquet(tmp_path / "train-1.parquet", [0, 1], DOG_CAT, first=2)
    parquet(tmp_path / "test-0.parquet", [0, 1], DOG_CAT, first=4)
    source = open_source(data(tmp_path))
    assert source.class_names == CAT_DOG
    expected = dict(
        zip(map(png, range(6)), ["cat", "dog", "dog", "cat", "dog", "cat"], strict=True)
    )
    assert classes(source) == expected


def test_names_and_words_are_joined(tmp_path):
    parquet(tmp_path / "train.parquet", [1, 0], DOG_CAT)
    parquet(tmp_path / "test.parquet", ["dog", "cat"], first=2)
    expected = dict(zip(map(png, range(4)), ["cat", "dog", "dog", "cat"], strict=True))
    assert classes(open_source(data(tmp_path))) == expected


@pytest.mark.parametrize(
    ("test_labels", "test_names", "message"),
    [
        ([0, 1], None, r"test\.parquet are bare numbers, those of .*train\.parquet are names"),
        (
            [0, 1],
            ["cat", "fox"],
            r"train\.parquet and .*test\.parquet have other classes: 'dog', 'fox'",
        ),
        (
            ["cat", "fox"],
            None,
            r"test\.parquet has the classes 'fox', which .*train\.parquet does not",
        ),
    ],
)
def test_files_that_cannot_be_joined_by_name(tmp_path, test_labels, test_names, message):
    parquet(tmp_path / "train.parquet", [0, 1], CAT_DOG)
    parquet(tmp_path / "test.parquet", test_labels, test_names, first=2)
    with pytest.raises(TruelikeError, match=message):
        open_source(data(tmp_path))


def test_words_or_bare_numbers_as_labels(tmp_path):
    parquet(tmp_path / "words/train.parquet", ["dog", "cat"])
    assert open_source(data(tmp_path / "words")).class_names == ["cat", "dog"]
    parquet(tmp_path / "numbers/train/0000.parquet", [10, 9])
    assert open_source(data(tmp_path / "numbers")).class_names == ["9", "10"]
    parquet(tmp_path / "mixed/train.parquet", [0, 1])
    parquet(tmp_path / "mixed/test.parquet", ["0", "1"])
    with pytest.raises(TruelikeError, match="bare numbers"):
        open_source(data(tmp_path / "mixed"))
    categories = pa.array(["b", "a"]).dictionary_encode()
    parquet(tmp_path / "categories/train.parquet", categories)
    assert open_source(data(tmp_path / "categories")).class_names == ["a", "b"]
    parquet(tmp_path / "floats/train.parquet", [1.0, 0.0])
    assert open_source(data(tmp_path / "floats")).class_names == ["0", "1"]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 2], ["a", "b"], "row 1: label 2 is none of the 2 classes"),
        ([0, -2], ["a", "b"], "row 1: label -2 is none"),
        (["a", "c"], ["a", "b"], "row 1: label 'c' is none"),
        ([[0], [0, 1]], None, "row 0: the label must be a word or a whole number, found a list"),
        ([0.5, 1.0], None, r"row 0: the label must be .*found 0\.5"),
        ([b"a", b"b"], None, "row 0: the label must be a word"),
        ([{"a": 1}, {"a": 2}], None, "row 0: the label must be a word"),
        ([0, 1], ["a", "a"], "must be different words"),
        ([0, 1], "ab", "must be different words"),
        ([0, 1], ["a", ""], "the class name '' is blank"),
    ],
)
def test_labels_of_other_kinds(tmp_path, labels, names, message):
    parquet(tmp_path / "train.parquet", labels, names)
    with pytest.raises(TruelikeError, match=message):
        open_source(data(tmp_path))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, None], None),
        ([0, 1, None], CAT_DOG),
        ([0, 1, -1], CAT_DOG),
        (["cat", "dog", None], None),
        (["cat", "dog", ""], None),
        ([0.0, 1.0, float("nan")], None),
    ],
)
def test_missing_labels_are_refused_by_row_or_left_out_on_request(tmp_path, labels, names):
    file = parquet(tmp_path / "train.parquet", labels, names)
    message = rf"1 images have no label.* is {file}: row 2; .*data\.skip_unlabelled: true"
    with pytest.raises(TruelikeError, match=message):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, skip_unlabelled=True))
    assert set(classes(source)) == {png(0), png(1)}
    assert "left out 1 images without a label" in description(source)


def test_a_test_split_without_labels_can_be_left_out(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 1], CAT_DOG)
    parquet(tmp_path / "test.parquet", [-1, -1], CAT_DOG, first=2)
    source = open_source(data(tmp_path, skip_unlabelled=True))
    assert {record.split for record in source.records} == {"train"}


def test_minus_one_among_bare_numbers_is_a_class(tmp_path):
    parquet(tmp_path / "train.parquet", [-1, 1])
    assert open_source(data(tmp_path)).class_names == ["-1", "1"]


def test_unused_class_names_can_be_left_out(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 2], ["cat", "dog", "fox"])
    with pytest.raises(TruelikeError, match=r"no train images of 'dog'.*data\.skip_unused: true"):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, skip_unused=True))
    assert source.class_names == ["cat", "fox"]
    assert sorted(classes(source).values()) == ["cat", "fox"]


@pytest.mark.parametrize(
    "metadata",
    [{"info": {"features": None}}, {"info": None}, {}, [], {"info": {"features": {"label": None}}}],
)
def test_metadata_without_class_names(tmp_path, metadata):
    file = parquet(tmp_path / "train.parquet", ["a", "b"])
    table = pq.read_table(file).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, file)
    assert open_source(data(tmp_path)).class_names == ["a", "b"]


def test_metadata_that_is_broken(tmp_path):
    file = parquet(tmp_path / "train.parquet", ["a", "b"])
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": "{"}), file)
    with pytest.raises(TruelikeError, match=r"train\.parquet: its Hugging Face metadata"):
        open_source(data(tmp_path))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_kind_of_bytes(tmp_path, kind, wrapped):
    whole = pa.struct([("bytes", kind), ("path", pa.large_string())]) if wrapped else kind
    parquet(tmp_path / "train.parquet", pa.array(["a", "b"], pa.large_string()), kind=whole)
    assert classes(open_source(data(tmp_path))) == {png(0): "a", png(1): "b"}


def test_images_that_are_not_there_are_named_when_read(tmp_path):
    cells = pa.array([{"bytes": png(), "path": "x"}, {"bytes": None, "path": "y"}, None])
    pq.write_table(pa.table({"image": cells, "label": ["a", "b", "b"]}), tmp_path / "train.parquet")
    records = open_source(data(tmp_path)).records
    for record in records[1:]:
        with pytest.raises(TruelikeError, match=r"row [12] has no image bytes"):
            record.read()


def test_shards_may_repeat_each_others_paths(tmp_path):
    for shard in range(2):
        file = tmp_path / f"train-0000{shard}-of-00002.parquet"
        parquet(file, [0, 1], CAT_DOG, ["0.jpg", "1.jpg"], first=2 * shard)
    parquet(tmp_path / "train-plain.parquet", [0, 1], CAT_DOG, ["2.jpg", "3.jpg"], first=4)
    assert set(placed(open_source(data(tmp_path)))) == {
        "train-00000-of-00002.parquet/0.jpg",
        "train-00000-of-00002.parquet/1.jpg",
        "train-00001-of-00002.parquet/0.jpg",
        "train-00001-of-00002.parquet/1.jpg",
        "train/2.jpg",
        "train/3.jpg",
    }


def test_columns_can_be_named(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 1], CAT_DOG, image="img", label="fine_label")
    with pytest.raises(TruelikeError, match=r"no column 'image', found img.*data\.image_column"):
        open_source(data(tmp_path))
    with pytest.raises(TruelikeError, match=r"no column 'label', found img.*data\.label_column"):
        open_source(data(tmp_path, image_column="img"))
    source = open_source(data(tmp_path, image_column="img", label_column="fine_label"))
    assert source.class_names == CAT_DOG


def test_files_that_are_no_image_sets(tmp_path):
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(TruelikeError, match="must hold encoded images"):
        open_source(data(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(TruelikeError, match=r"train\.parquet: not a readable parquet file"):
        open_source(data(tmp_path))


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["data/train-00000-of-00002-abc", "data/test-00000-of-00001"], ["train", "test"]),
        (["default/partial-train/0000", "default/partial-test/0000"], ["train", "test"]),
        (["mnist_train", "mnist_test"], ["train", "test"]),
        (["train/0000", "train/0001", "dev/0000"], ["train", "train", "validation"]),
        (["plain_text/training_01", "plain_text/val_01"], ["train", "validation"]),
        (["0000", "0001"], ["train", "train"]),
        (["part-00000-of-00002", "part-00001-of-00002"], ["train", "train"]),
        (["test-data/train", "test-data/eval"], ["train", "test"]),
        (["00000-train", "00001-train", "00000-test"], ["train", "train", "test"]),
        (["train/part-0-a1", "train/part-1-b2", "test/part-0-c3"], ["train", "train", "test"]),
    ],
)
def test_the_split_of_a_file_is_said_by_its_name_or_folder(tmp_path, files, splits):
    for number, name in enumerate(files):
        parquet(tmp_path / f"{name}.parquet", [0, 1], CAT_DOG, first=2 * number)
    found = {record.read(): record.split for record in read_source(data(tmp_path), "data").records}
    assert found == {
        png(2 * number + row): split for number, split in enumerate(splits) for row in range(2)
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train", "holdout"], r"no split is said by the names of 'holdout\.parquet'"),
        (["seen", "unseen"], "no split is said by .*'seen.parquet'.*no numbered parts"),
        (["train_test"], r"the names of 'train_test\.parquet' say two splits"),
        (["fine/train", "fine/test", "coarse/train"], "several configurations: 'coarse', 'fine'"),
        (["train", "more/train"], r"several configurations: '\.', 'more'"),
        (["fine_train", "coarse_train"], "several configurations: 'coarse', 'fine'"),
        (["train/fine", "train/coarse", "test/fine"], "several configurations: 'coarse', 'fine'"),
    ],
)
def test_files_that_the_rule_does_not_place(tmp_path, files, message):
    for name in files:
        parquet(tmp_path / f"{name}.parquet", [0, 1], CAT_DOG)
    with pytest.raises(TruelikeError, match=message) as error:
        read_source(data(tmp_path), "data")
    assert f"found in {tmp_path}:" in str(error.value)


def test_one_configuration_is_chosen(tmp_path):
    for number, (config, names) in enumerate({"fine": CAT_DOG, "coarse": ["pet", "wild"]}.items()):
        parquet(tmp_path / config / "train/0000.parquet", [0, 1], names, first=4 * number)
        parquet(tmp_path / config / "test/0000.parquet", [0, 1], names, first=4 * number + 2)
    source = open_source(data(tmp_path, config="coarse"))
    assert source.class_names == ["pet", "wild"]
    assert set(classes(source)) == {png(number) for number in range(4, 8)}
    assert "left out 2 other files (2 .parquet)" in description(source)
    with pytest.raises(TruelikeError, match=r"data\.config: 'fin' is none of 'coarse', 'fine'"):
        open_source(data(tmp_path, config="fin"))


@pytest.mark.parametrize("files", [["fine_train", "coarse_train"], ["train/fine", "train/coarse"]])
def test_a_configuration_by_the_names_of_files(tmp_path, files):
    for number, name in enumerate(files):
        parquet(tmp_path / f"{name}.parquet", ["a", "b"], first=2 * number)
    assert set(classes(open_source(data(tmp_path, config="fine")))) == {png(0), png(1)}


def test_files_by_hand(tmp_path):
    for number, name in enumerate(["seen-1", "seen-2", "unseen", "fine/seen"]):
        parquet(tmp_path / f"{name}.parquet", [0, 1], CAT_DOG, first=2 * number)
    splits = {"train": "seen-*.parquet", "test": "unseen.parquet"}
    source = open_source(data(tmp_path, splits=splits))
    assert [record.split for record in source.records].count("train") == 4
    assert "left out 1 other files" in description(source)


def test_pictures_beside_parquet_files_with_images(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 1], CAT_DOG)
    folder(tmp_path, ["assets/preview.png"])
    with pytest.raises(TruelikeError, match="both pictures and parquet files with images"):
        open_source(data(tmp_path))
    assert len(open_source(data(tmp_path, splits={"train": "train.parquet"})).records) == 2


def test_the_embedded_set():
    from pathlib import Path

    source = open_source(data(Path(__file__).parents[2] / "data/fashion"))
    assert len(source.class_names) == 10
    assert source.records[0].read()[:4] == b"\x89PNG"


def test_a_column_of_splits_goes_before_the_name_of_the_file(tmp_path):
    path = parquet(tmp_path / "train.parquet", ["a", "b", "a", "b"])
    table = pq.read_table(path)
    pq.write_table(table.append_column("split", [["train", "train", "test", "test"]]), path)
    splits = [split for split, _ in placed(open_source(data(tmp_path))).values()]
    assert splits == ["train", "train", "test", "test"]
    by_hand = open_source(data(tmp_path, splits={"train": "train.parquet"}))
    assert {record.split for record in by_hand.records} == {"train"}
    pq.write_table(table.append_column("split", [["train", None, "test", "test"]]), path)
    with pytest.raises(TruelikeError, match=r"train\.parquet: row 1: the column 'split' says None"):
        open_source(data(tmp_path))

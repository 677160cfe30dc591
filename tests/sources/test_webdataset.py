"""Tar archives in WebDataset's layout as a source."""

import io
import json
import tarfile

import numpy as np
import pytest

from tests.support.sources import data, folder, placed, png
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.sources.formats import open_source
from truelike.sources.source import description


def archive(path, files, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else str(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pairs(labels, first=0, suffix="cls"):
    files = {}
    for number, label in enumerate(labels):
        files[f"{number:06d}.png"] = png(first + number)
        files[f"{number:06d}.{suffix}"] = label
    return files


def classes(source):
    return {record.read(): record.class_name for record in source.records}


def test_labels_of_class_files(tmp_path):
    archive(tmp_path / "train-0000.tar", pairs(["10\n", "9"]))
    source = open_source(data(tmp_path))
    assert source.class_names == ["9", "10"]
    assert classes(source) == {png(0): "10", png(1): "9"}
    assert set(placed(source)) == {"train/000000.png", "train/000001.png"}


def test_shards_of_splits_that_repeat_each_others_keys(tmp_path):
    archive(tmp_path / "train-0.tar", pairs(["cat", "dog"]))
    archive(tmp_path / "train-1.tar", pairs(["dog", "cat"], first=2))
    archive(tmp_path / "test-0.tar", pairs(["dog", "cat"], first=4))
    source = open_source(data(tmp_path))
    expected = ["cat", "dog", "dog", "cat", "dog", "cat"]
    assert classes(source) == dict(zip(map(png, range(6)), expected, strict=True))
    assert [placed(source)[f"train-{n}.tar/000000.png"] for n in (0, 1)] == [
        ("train", "cat"),
        ("train", "dog"),
    ]
    assert placed(source)["test/000001.png"] == ("test", "cat")


def test_labels_of_json_files(tmp_path):
    rows = [json.dumps({"label": n, "class_name": name}) for n, name in enumerate("xy")]
    archive(tmp_path / "train.tar", pairs(rows, suffix="json"))
    assert open_source(data(tmp_path)).class_names == ["x", "y"]
    assert open_source(data(tmp_path, label_column="label")).class_names == ["0", "1"]


def test_an_image_set_of_ours_is_a_source(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    samples = [Sample(f"i{n}", n % 2, pixels + n, {"split": "train"}) for n in range(4)]
    write_image_set(tmp_path, samples, ["hat", "bag"], shard_size=2)
    assert sorted(record.class_name for record in open_source(data(tmp_path)).records) == [
        *("bag", "bag", "hat", "hat")
    ]


def test_one_of_several_images_is_chosen_by_its_extension(tmp_path):
    files = {"a.left.png": png(1), "a.right.png": png(2), "a.cls": "x"}
    files |= {"b.left.png": png(3), "b.right.png": png(4), "b.cls": "y", "b.txt": "a caption"}
    archive(tmp_path / "train.tar", files)
    with pytest.raises(TruelikeError, match=r"'a' has two images.*data\.image_column, such as"):
        open_source(data(tmp_path))
    source = open_source(data(tmp_path, image_column="right.png"))
    assert classes(source) == {png(2): "x", png(4): "y"}
    assert "left out 3 other files (2 .png, 1 .txt)" in description(source)


def test_images_without_labels(tmp_path):
    archive(tmp_path / "train.tar", pairs(["a", "b"]) | {"c.png": png(9)})
    with pytest.raises(TruelikeError, match=r"1 images have no label.*train\.tar: c\.png"):
        open_source(data(tmp_path))
    assert len(open_source(data(tmp_path, skip_unlabelled=True)).records) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pairs([b"\xff\xfe", "a"]), r"000000\.cls is no label"),
        (pairs(["{", "{}"], suffix="json"), r"000000\.json is no label"),
        (pairs(["x" * 2**21, "a"]), "too many for a label"),
        (
            pairs(['{"label": [1]}', '{"label": [2]}'], suffix="json"),
            r"000000\.png: the label must",
        ),
    ],
)
def test_labels_that_cannot_be_read(tmp_path, content, message):
    archive(tmp_path / "train.tar", content)
    with pytest.raises(TruelikeError, match=message):
        open_source(data(tmp_path))


def test_archives_that_cannot_be_read(tmp_path):
    archive(tmp_path / "train.tar", pairs(["a", "b"]), "w:gz")
    with pytest.raises(TruelikeError, match=r"train\.tar: not a readable tar archive"):
        open_source(data(tmp_path))


@pytest.mark.parametrize("blocks", [1, 2, 5, 9])
def test_an_archive_that_is_cut_short_loses_no_image_silently(tmp_path, blocks):
    path = archive(tmp_path / "train.tar", pairs("abab"))
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: 512 * (len(whole) // 512 + 1 - blocks)])
    with pytest.raises(
        TruelikeError,
        match=r"train\.tar: .*\((it is cut short|unexpected end)",
    ):
        open_source(data(tmp_path))


def test_an_archive_behind_another_in_one_file_is_refused(tmp_path):
    path = archive(tmp_path / "train.tar", pairs("ab"))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(TruelikeError, match="something follows its end"):
        open_source(data(tmp_path))


def test_an_archive_of_a_folder_is_no_webdataset(tmp_path):
    archive(tmp_path / "set.tar", {"a/1.png": png(1), "b/2.png": png(2)})
    with pytest.raises(TruelikeError, match=r"no image in 'set\.tar' has a label.*unpack"):
        open_source(data(tmp_path))


def test_an_archive_beside_folders_of_pictures_is_left_out(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    archive(tmp_path / "backup.tar", pairs(["a", "b"]))
    source = open_source(data(tmp_path))
    assert len(source.records) == 2
    assert "1 .tar" in description(source)

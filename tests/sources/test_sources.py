"""Image folders, parquet sets and hub pointers end in the same records."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from truelike.runtime.errors import TruelikeError
from truelike.sources import formats as sources
from truelike.sources.formats import open_source


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def folder(root, files):
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return root


def parquet(path, labels, names=None, paths=None, **columns):
    cells = [{"bytes": png(n), "path": paths[n] if paths else None} for n in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            columns.get("image", "image"): pa.array(cells, kind),
            columns.get("label", "label"): labels,
        }
    )
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def summary(source):
    return {(r.split, r.class_name, r.source) for r in source.records}


def test_folder_of_class_folders(tmp_path, capsys):
    root = folder(tmp_path, ["wet dog/a.PNG", "wet dog/deep/b.jpeg", "Käse/c.webp"])
    (root / "wet dog" / "notes.txt").write_text("no image")
    (root / "Käse" / ".DS_Store").write_text("hidden")
    source = open_source(root)
    assert source.class_names == ["Käse", "wet dog"]
    assert summary(source) == {
        ("train", "wet dog", "wet dog/a.PNG"),
        ("train", "wet dog", "wet dog/deep/b.jpeg"),
        ("train", "Käse", "Käse/c.webp"),
    }
    assert source.records[0].read() == png(2)
    assert "left out 1 files" in capsys.readouterr().err


def test_decomposed_names_are_the_same_class(tmp_path):
    root = folder(
        tmp_path,
        ["train/Ka\u0308se/a.png", "test/K\u00e4se/b.png", "train/b/c.png", "test/b/d.png"],
    )
    assert open_source(root).class_names == ["K\u00e4se", "b"]


def test_folder_with_splits(tmp_path):
    root = folder(
        tmp_path, [f"{split}/{name}/1.png" for split in ("Train", "val", "test") for name in "ab"]
    )
    assert {(split, name) for split, name, _ in summary(open_source(root))} == {
        (split, name) for split in ("train", "validation", "test") for name in "ab"
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.png"], "two or more classes, found a"),
        ([], "two or more classes, found none"),
        (["train/a/1.png", "train/b/1.png", "test/a/2.png"], "no test images of 'b'"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png", "test/c/2.png"],
            "no train images of 'c'",
        ),
        (["test/a/1.png", "test/b/1.png"], "no train folder"),
    ],
)
def test_folders_that_cannot_be_learned_from(tmp_path, files, message):
    with pytest.raises(TruelikeError, match=message):
        open_source(folder(tmp_path, files))


def test_empty_class_folder(tmp_path):
    (folder(tmp_path, ["a/1.png", "b/1.png"]) / "empty one").mkdir()
    with pytest.raises(TruelikeError, match="no train images of 'empty one'"):
        open_source(tmp_path)


def test_missing_source(tmp_path):
    with pytest.raises(TruelikeError, match=r"data\.source: .*nowhere is not there"):
        open_source(tmp_path / "nowhere")


def test_parquet_with_class_names(tmp_path):
    names = ["2", "1"]  # a label is an index, whatever the names look like
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [0, 1], names, ["x.png", "y.png"])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [1, 0], names)
    source = open_source(tmp_path)
    assert source.class_names == names
    assert summary(source) == {
        ("train", "2", "train/x.png"),
        ("train", "1", "train/y.png"),
        ("test", "1", "data/test-00000-of-00001.parquet/00000000"),
        ("test", "2", "data/test-00000-of-00001.parquet/00000001"),
    }
    assert source.records[2].read() == png(0)


def test_parquet_with_words_or_bare_numbers_as_labels(tmp_path):
    parquet(tmp_path / "words/train.parquet", ["dog", "cat"])
    assert open_source(tmp_path / "words").class_names == ["cat", "dog"]
    parquet(tmp_path / "numbers/train/0000.parquet", [10, 9])
    assert open_source(tmp_path / "numbers").class_names == ["9", "10"]


@pytest.mark.parametrize(
    ("labels", "names", "paths", "message"),
    [
        ([0, 2], ["a", "b"], None, "row 1: label 2 is none of the 2 classes"),
        ([0, -1], ["a", "b"], None, "row 1: label -1 is none"),
    ],
)
def test_parquet_labels_out_of_range(tmp_path, labels, names, paths, message):
    parquet(tmp_path / "train.parquet", labels, names, paths)
    with pytest.raises(TruelikeError, match=message):
        open_source(tmp_path)


def test_parquet_that_is_not_an_image_set(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(TruelikeError, match="no column 'image', found text, label"):
        open_source(tmp_path)
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(TruelikeError, match="must hold encoded images"):
        open_source(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(TruelikeError, match="not a readable parquet file"):
        open_source(tmp_path)


def test_the_embedded_set():
    from pathlib import Path

    source = open_source(Path(__file__).parents[2] / "data/fashion")
    assert len(source.class_names) == 10
    assert source.records[0].read()[:4] == b"\x89PNG"


def test_hub_pointer(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    parquet(tmp_path / "hub/train.parquet", ["a", "b"], image="img", label="fine")
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    pointer = tmp_path / "set.yaml"
    pointer.write_text("hub: owner/set\nimage_column: img\nlabel_column: fine\n")
    assert open_source(pointer).class_names == ["a", "b"]
    assert (asked["name"], asked["repo_type"]) == ("owner/set", "dataset")
    assert "pin it to a commit" in capsys.readouterr().err
    pointer.write_text("hub: owner/set\ncolumn: img\n")
    with pytest.raises(TruelikeError, match=r"set\.yaml: must hold hub.*column: Extra inputs"):
        open_source(pointer)


def test_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "set.yaml").write_text("hub: owner/set\nrevision: " + "ab" * 20)
    with pytest.raises(TruelikeError, match=r"set\.yaml: cannot download owner/set at abab"):
        open_source(tmp_path / "set.yaml")


def test_split_names():
    from pathlib import Path

    names = {
        "data/train-00000-of-00002-abc.parquet": "train",
        "validation/0000.parquet": "validation",
    }
    names |= {
        "test.parquet": "test",
        "plain_text/val_01.parquet": "validation",
        "0000.parquet": "train",
    }
    assert {name: sources._split_of(Path(name)) for name in names} == names

"""Exported folders: what selection kept, splits apart, names that every file system allows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import truelike
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.sharing.export import export, folder_names

CLASSES = ["cat", "dog"]


def write_set(folder: Path, suffix: str, **columns: object) -> ImageSet:
    draw = np.random.default_rng(0)
    samples = [
        Sample(f"k{n}{suffix}", n % 2, draw.integers(0, 256, (4, 4, 3), dtype=np.uint8), columns)
        for n in range(4)
    ]
    write_image_set(folder, samples, CLASSES)
    return ImageSet(folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two replicas of which selection dropped k1-r0 and moved k2-r1 to another class."""
    outputs = tmp_path / "outputs"
    sets = [
        write_set(
            outputs / f"synthetic/{r}", f"-r{r}", prompt="a\nphoto", source_key="k", replica=r
        )
        for r in (0, 1)
    ]
    table = pd.concat([pd.DataFrame({"key": s.keys, "label": s.labels}) for s in sets])
    table["keep"] = table["key"] != "k1-r0"
    table.loc[table["key"] == "k2-r1", "label"] = 1
    (outputs / "selection").mkdir()
    table.to_parquet(outputs / "selection/synthetic.parquet")
    for split in ("train", "test"):
        write_set(outputs / f"real/{split}", f"-{split}", split=split)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_dropped_images_stay_out_and_prompts_go_along(project, tmp_path):
    assert export(project / "outputs/synthetic", tmp_path / "kept") == 7
    expected = {"cat/k0-r0", "cat/k2-r0", "dog/k3-r0", "cat/k0-r1", "dog/k1-r1", "dog/k3-r1"}
    expected |= {"dog/k2-r1"}  # relabelled
    assert files(tmp_path / "kept") == {f"{key}.png" for key in expected} | {"metadata.jsonl"}
    lines = (tmp_path / "kept/metadata.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    assert rows["k2-r1"] == {
        "file_name": "dog/k2-r1.png",
        "label": "dog",
        "text": "a\nphoto",
        "key": "k2-r1",
        "source_key": "k",
        "replica": 1,
    }
    one = export(project / "outputs/synthetic/0", tmp_path / "one")
    assert (one, export(project / "outputs/synthetic", tmp_path / "all", dropped=True)) == (3, 8)
    assert "dog/k1-r0.png" in files(tmp_path / "all")


def test_a_folder_of_its_own_for_every_split(project, tmp_path):
    assert export(project / "outputs/real", tmp_path / "out") == 8
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"train", "test"}
    rows = [json.loads(line) for line in (tmp_path / "out/test/metadata.jsonl").open()]
    assert [row["file_name"] for row in rows[:2]] == ["cat/k0-test.png", "dog/k1-test.png"]
    export(project / "outputs/real/test", tmp_path / "test")
    assert "cat/k0-test.png" in files(tmp_path / "test")


def test_a_class_may_be_called_like_the_table(tmp_path):
    samples = [Sample(f"k{n}", n, np.zeros((4, 4, 3), np.uint8), {}) for n in (0, 1)]
    write_image_set(tmp_path / "set", samples, ["Metadata.jsonl", "dog"])
    assert export(tmp_path / "set", tmp_path / "out") == 2
    expected = {"%4Detadata.jsonl/k0.png", "dog/k1.png", "metadata.jsonl"}
    assert files(tmp_path / "out") == expected


def test_columns_of_lists_and_of_nothing_go_along(tmp_path):
    write_set(tmp_path / "set", "", box=[1, 2], score=float("nan"))
    export(tmp_path / "set", tmp_path / "out")
    row = json.loads((tmp_path / "out/metadata.jsonl").read_text().splitlines()[0])
    assert row["box"] == [1, 2]
    assert row["score"] is None


def test_sets_that_share_keys_are_not_mixed(project, tmp_path):
    write_set(project / "outputs/naive/0", "-r0")
    with pytest.raises(TruelikeError, match=r"naive/0.*synthetic/0: all have an image 'k0-r0'"):
        export(project / "outputs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_load_of_selected_images_has_the_labels_of_selection(project, tmp_path):
    images = truelike.load(project, selected=True)
    rows = [row for row, _ in images.rows()]
    assert len(images) == len(rows) == 7
    assert [label for _, label in images] == [row["label"] for row in rows]
    assert {row["key"]: row["class_name"] for row in rows}["k2-r1"] == "dog"
    assert len(truelike.load(project)) == 8
    with pytest.raises(TruelikeError, match="no selection table beside it"):
        truelike.load(write_set(tmp_path / "got", "-r0").folder, selected=True)
    with pytest.raises(TruelikeError, match="selected is about synthetic images"):
        truelike.load(project, split="test", selected=True)


def test_class_folders_are_safe():
    names = ["..", "x/y", 'q?"', "Größe", "end. ", "con", "COM1.x", "100%", "a\nb", ".hidden", ""]
    assert folder_names(names) == [
        "%2E%2E",
        "x%2Fy",
        "q%3F%22",
        "Größe",
        "end.%20",
        "%63on",
        "%43OM1.x",
        "100%25",
        "a%0Ab",
        "%2Ehidden",
        "%20",
    ]
    assert folder_names(["A", "a", "A_0"]) == ["A~0", "a~1", "A_0"]
    assert all(len(name.encode()) < 255 for name in folder_names(["ä" * 300, "x" * 300]))


@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=6, unique=True))
def test_no_two_classes_share_a_folder_even_where_case_does_not_matter(names):
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all(0 < len(folder.encode()) <= 160 and "/" not in folder for folder in folders)

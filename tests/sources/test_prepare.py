"""The stage prepare: four image sets, the same bytes every time, and nothing shared between
them.
"""

import hashlib
import os
import random
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.sources import data, parquet
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.sources.prepare import image_key, prepare
from truelike.sources.settings import Data

ROOT = Path(__file__).resolve().parents[2]


def noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def source(tmp_path):
    for number in range(20):
        noise(tmp_path / "source" / ("a", "b c")[number % 2] / f"{number}.png", number)
    return tmp_path / "source"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def sets(out: Path) -> dict[str, ImageSet]:
    return {name: ImageSet(out / "real" / name) for name in ("train", "validation", "test")} | {
        "extra": ImageSet(out / "extra")
    }


def run(settings: Data, out: Path) -> dict[str, ImageSet]:
    prepare(settings, out / "real", out / "extra")
    return sets(out)


def test_sets_are_disjoint_and_complete(source, tmp_path):
    made = run(data(source), tmp_path / "out")
    assert {name: len(images) for name, images in made.items()} == {
        "train": 6,
        "validation": 4,
        "test": 4,
        "extra": 6,
    }
    keys = [key for images in made.values() for key in images.keys]
    assert len(set(keys)) == 20
    assert made["train"].class_names == ["a", "b c"]
    assert np.bincount(made["train"].labels).tolist() == [3, 3]
    row = made["train"].index.iloc[0]
    assert row["split"] == "train"
    stored = np.asarray(Image.open(source / row["source"]))
    assert (made["train"].pixels(0) == stored).all()


def test_bytes_are_the_same_in_every_run_and_order(source, tmp_path, monkeypatch):
    run(data(source), tmp_path / "one")
    original = os.scandir

    def shuffled(path):
        children = list(original(path))
        random.Random(1).shuffle(children)
        return iter(children)

    monkeypatch.setattr("truelike.sources.source.os", SimpleNamespace(scandir=shuffled))
    run(data(source), tmp_path / "two")
    monkeypatch.setattr("truelike.sources.source.os", os)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    run(data(source), tmp_path / "one")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_fewer_images_than_before_leave_no_old_shard(source, tmp_path):
    run(data(source), tmp_path / "out")
    made = run(data(source, shots=None), tmp_path / "out")
    assert len(made["extra"]) == 0
    assert made["extra"].labels.dtype == np.int64
    assert not list((tmp_path / "out/extra").glob("*.tar"))


def test_more_shots_contain_fewer(source, tmp_path):
    few = run(data(source, shots=2), tmp_path / "few")
    more = run(data(source, shots=5), tmp_path / "more")
    assert set(few["train"].keys) < set(more["train"].keys)
    assert few["test"].keys == more["test"].keys
    assert digests(tmp_path / "few/real/test") == digests(tmp_path / "more/real/test")


def test_numbers_for_single_classes(source, tmp_path, capsys):
    whole = run(data(source, shots=None), tmp_path / "whole")
    made = run(data(source, shots={"a": 1, "b c": None}), tmp_path / "out")
    assert np.bincount(made["train"].labels).tolist() == [1, 6]
    assert set(made["extra"].index["class_name"]) == {"a"}
    together = [*made["train"].keys, *made["extra"].keys]
    assert sorted(together) == sorted(whole["train"].keys)
    assert digests(tmp_path / "out/real/test") == digests(tmp_path / "whole/real/test")
    run(data(source, shots={"a": 9, "b c": 1}), tmp_path / "more")
    assert "data.shots is 9, class 'a' has 6 training images" in capsys.readouterr().err
    for shots, problem in (
        ({"a": 1, "b": 1}, "'b' is no class; give each class its number .*: 'a', 'b c'"),
        ({"a": 1}, "no number for 'b c'"),
    ):
        with pytest.raises(TruelikeError, match=rf"data\.shots: {problem}"):
            run(data(source, shots=shots), tmp_path / "wrong")


def test_too_few_images_for_the_shots_are_all_used(source, tmp_path, capsys):
    made = run(data(source, shots=100), tmp_path / "out")
    assert len(made["train"]) == 12
    assert "data.shots is 100, class 'a' has 6 training images" in capsys.readouterr().err


def test_the_same_image_in_train_and_test(tmp_path):
    for number, place in enumerate(["train/a/1", "train/b/2", "test/a/3", "test/b/4"]):
        noise(tmp_path / f"{place}.png", number)
    Image.open(tmp_path / "train/a/1.png").save(tmp_path / "test/a/copy.bmp")
    with pytest.raises(
        TruelikeError, match=r"(?s)two splits.*test/a/copy.bmp \(test, a\)"
    ) as error:
        run(data(tmp_path), tmp_path / "out")
    assert "train/a/1.png (train, a)" in str(error.value)


def test_the_same_image_in_two_classes(source, tmp_path):
    noise(source / "b c/again.png", 0)
    with pytest.raises(
        TruelikeError, match=r"(?s)two classes.*a/0.png \(train, a\) = b c/again.png \(train, b c\)"
    ):
        run(data(source), tmp_path / "out")


def test_repeated_images_of_a_class_are_used_once(source, tmp_path, capsys):
    noise(source / "a/again.png", 0)
    made = run(data(source), tmp_path / "out")
    assert sum(map(len, made.values())) == 20
    assert (
        "left out 1 images that repeat another one of their split, the first is a/again.png"
        in capsys.readouterr().err
    )


def bad_files(section: str = "data") -> list[str]:
    return Path(os.environ["DVC_ROOT"], f".work/bad_files/{section}.txt").read_text().splitlines()


def test_all_unreadable_images_are_listed_in_a_file(source, tmp_path):
    for number in range(12):
        (source / "a" / f"bad{number:02}.png").write_bytes(b"no image")
    message = r"(?s)12 images cannot be used.*a/bad00.png: .*bad09.*and 2 more\n.*data\.txt"
    with pytest.raises(TruelikeError, match=message) as error:
        run(data(source), tmp_path / "out")
    assert "bad10" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert [line.split(":")[0] for line in bad_files()] == [f"a/bad{n:02}.png" for n in range(12)]


def test_bad_files_are_left_out_on_request_and_counted(source, tmp_path, capsys):
    clean = run(data(source), tmp_path / "clean")
    (source / "a/bad.png").write_bytes(b"no image")
    (source / "b c/gone.png").symlink_to(tmp_path / "nowhere.png")
    made = run(data(source, skip_bad=True), tmp_path / "out")
    assert {name: images.keys for name, images in made.items()} == {
        name: images.keys for name, images in clean.items()
    }
    assert "data.skip_bad: left out 2 images that cannot be used" in capsys.readouterr().err
    assert len(bad_files()) == 2
    assert "b c/gone.png: cannot be read (No such file or directory)" in bad_files()[1]
    for file in (source / "a").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(TruelikeError, match="no train images of 'a'"):
        run(data(source, skip_bad=True), tmp_path / "out")


def test_a_file_that_may_not_be_read_is_named(source, tmp_path, monkeypatch):
    original = Path.read_bytes

    def refused(path):
        if path.name == "4.png":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(TruelikeError, match=r"a/4\.png: cannot be read \(Permission denied\)"):
        run(data(source), tmp_path / "out")


def test_what_is_found_and_made_is_printed(source, tmp_path, capsys):
    (source / "a/notes.txt").write_text("x")
    run(data(source), tmp_path / "out")
    printed = capsys.readouterr().err
    assert "2 classes, 20 train images\n  a: 10 train\n  b c: 10 train\n" in printed
    assert "left out 1 other files (1 .txt), the first is a/notes.txt" in printed
    assert "prepared: 6 train (3 to 3 per class), 4 validation (2 to 2 per class)" in printed


def test_what_is_held_out_is_printed(source, tmp_path, capsys):
    held = "data.source has no {} images: 4 of train are held out"
    run(data(source), tmp_path / "out")
    printed = capsys.readouterr().err
    assert held.format("test") in printed
    assert held.format("validation") in printed
    (source / "train").mkdir()
    for name in ("a", "b c"):
        (source / name).rename(source / "train" / name)
        for number in range(2):
            noise(source / "test" / name / f"{number}.png", 100 + number + 2 * len(name))
    run(data(source), tmp_path / "out")
    printed = capsys.readouterr().err
    assert held.format("validation") in printed
    assert held.format("test") not in printed


def test_composed_and_decomposed_twins_are_both_used(source, tmp_path):
    twins = [unicodedata.normalize(form, "a/Käse.png") for form in ("NFC", "NFD")]
    for number, name in enumerate(twins):
        noise(source / name, 100 + number)
    made = run(data(source), tmp_path / "out")
    used = {name for images in made.values() for name in images.index["source"]}
    assert len(used) == 22
    assert set(twins) <= used
    left = run(data(source, exclude=[twins[1]]), tmp_path / "left")
    gone = used - {name for images in left.values() for name in images.index["source"]}
    assert gone == {twins[1]}


def test_an_image_can_be_excluded_by_the_decomposed_name_that_the_disk_has(source, tmp_path):
    decomposed = unicodedata.normalize("NFD", "a/Käse.png")
    noise(source / decomposed, 100)
    made = run(data(source, exclude=[decomposed]), tmp_path / "out")
    assert sum(map(len, made.values())) == 20


def test_labels_of_shards_that_number_classes_otherwise_reach_the_sets(tmp_path):
    for shard, names in enumerate([["cat", "dog"], ["dog", "cat"]]):
        file = tmp_path / f"source/train-{shard}.parquet"
        parquet(file, [0, 1] * 5, names, [f"{shard}-{n}" for n in range(10)], first=10 * shard)
    made = run(data(tmp_path / "source", shots=None), tmp_path / "out")
    rows = [row for images in made.values() for row in images.index.itertuples()]
    assert len(rows) == 20
    for row in rows:
        shard, number = map(int, row.source.removeprefix("train/").split("-"))
        assert row.class_name == ("cat" if (shard + number) % 2 == 0 else "dog")


def test_a_deep_image_that_uses_little_of_its_range_is_warned_of(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "source" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = rng.integers(0, 4096, (8, 8)).astype(np.uint16)
        cells[:4] //= 2
        Image.fromarray(cells).save(path)
    flat = run(data(tmp_path / "source", shots=None), tmp_path / "flat")
    assert "8 of 8 images of 16 bits use less than a quarter" in capsys.readouterr().err
    assert max(images.load().max() for images in flat.values() if len(images)) <= 16
    settings = data(tmp_path / "source", shots=None, depth="minmax")
    wide = run(settings, tmp_path / "wide")
    assert "warning" not in capsys.readouterr().err
    assert min(np.ptp(images.pixels(0)) for images in wide.values() if len(images)) == 255


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_are_plain_and_differ(one, other):
    key = image_key(f"a/{one}.png")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(key) <= 49
    assert (key == image_key(f"a/{other}.png")) == (one == other)


def test_key_tells_the_file():
    digest = hashlib.sha256("x/Größe 1.PNG".encode()).hexdigest()[:8]
    assert image_key("x/Größe 1.PNG") == f"groe-1-{digest}"


def test_embedded_images_stay_as_they_are_in_a_black_frame(tmp_path):
    made = run(data(ROOT / "data/fashion", resolution=32, shots=16), tmp_path)
    assert [len(made[name]) for name in ("train", "validation", "test", "extra")] == [
        160,
        500,
        5000,
        840,
    ]
    pixels = made["test"].load()
    frame = np.ones((32, 32), bool)
    frame[2:30, 2:30] = False
    assert not pixels[:, frame].any()
    assert pixels[:, ~frame].any(axis=(1, 2)).all()


def test_excluded_images_and_their_copies_are_nowhere(source, tmp_path, capsys):
    noise(source / "a/a copy.png", 0)
    after = run(data(source, exclude=["a/0.png", image_key("b c/7.png")]), tmp_path / "after")
    left = {name: set(images.keys) for name, images in after.items()}
    gone = {image_key(name) for name in ("a/0.png", "a/a copy.png", "b c/7.png")}
    assert not gone & set().union(*left.values())
    assert sum(map(len, left.values())) == 18
    assert "data.exclude: 3 images left out" in capsys.readouterr().err


def test_excluding_changes_no_bytes_of_the_sets_that_it_does_not_touch(tmp_path):
    for number in range(24):
        noise(
            tmp_path
            / "source"
            / ("train", "validation", "test")[number % 3]
            / "ab"[number % 2]
            / f"{number}.png",
            number,
        )
    settings = data(tmp_path / "source")
    run(settings, tmp_path / "before")
    for split, number, touched in (
        ("test", 2, {"real/test"}),
        ("train", 0, {"real/train", "extra"}),
    ):
        exclude = [f"{split}/{'ab'[number % 2]}/{number}.png"]
        run(settings.model_copy(update={"exclude": exclude}), tmp_path / split)
        names = ("real/train", "real/validation", "real/test", "extra")
        changed = {
            name
            for name in names
            if digests(tmp_path / "before" / name) != digests(tmp_path / split / name)
        }
        assert changed <= touched
        assert changed


def test_an_excluded_image_may_be_broken_but_must_exist(source, tmp_path):
    (source / "a/broken.png").write_bytes(b"no image")
    run(data(source, exclude=["a/broken.png"]), tmp_path / "out")
    with pytest.raises(
        TruelikeError, match=r"data\.exclude: 'a/typo.png' is neither the path nor the key"
    ):
        run(data(source, exclude=["a/typo.png"]), tmp_path / "out")
    every = [f"a/{number}.png" for number in range(0, 20, 2)] + ["a/broken.png"]
    with pytest.raises(TruelikeError, match=r"data\.exclude: no train image of class 'a' is left"):
        run(data(source, exclude=every), tmp_path / "out")

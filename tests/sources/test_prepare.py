"""The stage prepare: four image sets, the same bytes every time, and nothing shared between
them.
"""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.sources.prepare import image_key, prepare
from truelike.sources.settings import Data

ROOT = Path(__file__).resolve().parents[2]


def settings(source, **changes) -> Data:
    values = {
        "resolution": 8,
        "square": "pad",
        "shots": 3,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "seed": 0,
    }
    return Data(**(values | {"source": str(source), "exclude": ()} | changes))


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


def run(data: Data, out: Path) -> dict[str, ImageSet]:
    prepare(data, out / "real", out / "extra")
    return sets(out)


def test_sets_are_disjoint_and_complete(source, tmp_path):
    made = run(settings(source), tmp_path / "out")
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
    run(settings(source), tmp_path / "one")
    original = Path.iterdir

    def shuffled(path):
        children = list(original(path))
        random.Random(1).shuffle(children)
        return iter(children)

    monkeypatch.setattr(Path, "iterdir", shuffled)
    run(settings(source), tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    run(settings(source), tmp_path / "one")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_fewer_images_than_before_leave_no_old_shard(source, tmp_path):
    run(settings(source), tmp_path / "out")
    made = run(settings(source, shots=None), tmp_path / "out")
    assert len(made["extra"]) == 0
    assert made["extra"].labels.dtype == np.int64
    assert not list((tmp_path / "out/extra").glob("*.tar"))


def test_more_shots_contain_fewer(source, tmp_path):
    few = run(settings(source, shots=2), tmp_path / "few")
    more = run(settings(source, shots=5), tmp_path / "more")
    assert set(few["train"].keys) < set(more["train"].keys)
    assert few["test"].keys == more["test"].keys
    assert digests(tmp_path / "few/real/test") == digests(tmp_path / "more/real/test")


def test_too_few_images_for_the_shots_are_all_used(source, tmp_path, capsys):
    made = run(settings(source, shots=100), tmp_path / "out")
    assert len(made["train"]) == 12
    assert "data.shots is 100, class 'a' has 6 training images" in capsys.readouterr().err


def test_the_same_image_in_train_and_test(tmp_path):
    for number, place in enumerate(["train/a/1", "train/b/2", "test/a/3", "test/b/4"]):
        noise(tmp_path / f"{place}.png", number)
    Image.open(tmp_path / "train/a/1.png").save(tmp_path / "test/a/copy.bmp")
    with pytest.raises(
        TruelikeError, match=r"(?s)two splits.*test/a/copy.bmp \(test, a\)"
    ) as error:
        run(settings(tmp_path), tmp_path / "out")
    assert "train/a/1.png (train, a)" in str(error.value)


def test_the_same_image_in_two_classes(source, tmp_path):
    noise(source / "b c/again.png", 0)
    with pytest.raises(
        TruelikeError, match=r"(?s)two classes.*a/0.png \(train, a\) = b c/again.png \(train, b c\)"
    ):
        run(settings(source), tmp_path / "out")


def test_repeated_images_of_a_class_are_used_once(source, tmp_path, capsys):
    noise(source / "a/again.png", 0)
    made = run(settings(source), tmp_path / "out")
    assert sum(map(len, made.values())) == 20
    assert "1 images repeat another one" in capsys.readouterr().err


def test_all_unreadable_images_are_listed(source, tmp_path):
    for number in range(12):
        (source / "a" / f"bad{number:02}.png").write_bytes(b"no image")
    with pytest.raises(
        TruelikeError, match=r"(?s)12 images cannot be used.*a/bad00.png: .*bad09.*and 2 more"
    ) as error:
        run(settings(source), tmp_path / "out")
    assert "bad10" not in str(error.value)
    assert not (tmp_path / "out").exists()


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
    data = settings(ROOT / "data/fashion", resolution=32, shots=16)
    made = run(data, tmp_path)
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
    after = run(settings(source, exclude=["a/0.png", image_key("b c/7.png")]), tmp_path / "after")
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
    data = settings(tmp_path / "source")
    run(data, tmp_path / "before")
    for split, number, touched in (
        ("test", 2, {"real/test"}),
        ("train", 0, {"real/train", "extra"}),
    ):
        exclude = [f"{split}/{'ab'[number % 2]}/{number}.png"]
        run(data.model_copy(update={"exclude": exclude}), tmp_path / split)
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
    run(settings(source, exclude=["a/broken.png"]), tmp_path / "out")
    with pytest.raises(
        TruelikeError, match=r"data\.exclude: 'a/typo.png' is neither the path nor the key"
    ):
        run(settings(source, exclude=["a/typo.png"]), tmp_path / "out")
    every = [f"a/{number}.png" for number in range(0, 20, 2)] + ["a/broken.png"]
    with pytest.raises(TruelikeError, match=r"data\.exclude: no train image of class 'a' is left"):
        run(settings(source, exclude=every), tmp_path / "out")

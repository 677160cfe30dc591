"""Selection: scores calibrated on the real images, reasons per image, and nothing read but training
images.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.classifiers import CLASSES, coloured, optimization, write
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_features
from truelike.runtime.hub import Model
from truelike.selection import run as selection_run
from truelike.selection.copies import CopyLimits, copy_limits, pixel_distance
from truelike.selection.decisions import decide, relabel
from truelike.selection.judge import Judge
from truelike.selection.run import select
from truelike.selection.settings import Select
from truelike.training.images import LabelledImages

FEATURES = Path("outputs/features.parquet")
JUDGE = optimization(batch_size=64, warmup_fraction=0.05)


class MeanColours:
    """Stands in for the encoder: colour means of an image's quarters."""

    def embed(self, pixels: np.ndarray, batch_size: int) -> np.ndarray:
        count = len(pixels)
        return (
            pixels.reshape(count, 4, 8, 4, 8, 3).mean((2, 4)).reshape(count, -1).astype(np.float32)
            - 100
        )


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ImageSet, ImageSet]:
    """Real training images, and a set with one wrong label (position 3) and one copy
    (position 10).
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("encoder").mkdir()
    Path("encoder/config.json").touch()
    monkeypatch.setattr(selection_run, "open_encoder", lambda model: MeanColours())
    real = coloured(90, 0)
    write(Path("outputs/real/train"), real, "r")
    made = coloured(30, 1)
    made.pixels[3] = coloured(30, 2).pixels[4]
    made.pixels[10] = real.pixels[40]
    write(Path("outputs/synthetic/0"), made, "s")
    train = ImageSet("outputs/real/train")
    write_features(FEATURES, train.keys, MeanColours().embed(real.pixels, 64))
    Path("net.yaml").write_text("timm: test_resnet\n")
    return train, ImageSet("outputs/synthetic/0")


def settings(**changes: object) -> Select:
    base = {
        "sets": ["synthetic"],
        "min_class_probability": 0.1,
        "drop_near_copies": True,
        "relabel": False,
    }
    return Select.model_validate(base | {"classifier_steps": 60, "seed": 0} | changes)


def judged(
    sets: list[ImageSet], train: ImageSet, chosen: Select, features: Path = FEATURES
) -> pd.DataFrame:
    judge = Judge.of(chosen, JUDGE, "net.yaml")
    return select(sets, train, features, chosen, Model("encoder", "float32"), judge)


def test_a_wrong_label_and_a_copy_are_dropped_and_little_else(
    sets: tuple[ImageSet, ImageSet],
) -> None:
    train, made = sets
    table = judged([made], train, settings())
    assert table["key"].tolist() == made.keys
    assert table["folder"].unique().tolist() == ["outputs/synthetic/0"]
    dropped = table[~table["keep"]].set_index("key")["reason"]
    assert dropped["s3"].startswith("label: ")
    assert dropped["s3"].endswith("< 0.1")
    assert dropped["s10"] == "near-copy of r40"
    assert len(dropped) <= 4
    assert (table["keep"] == (table["reason"] == "")).all()
    assert table["class_probability"].between(0, 1).all()
    assert len(made.problems()) == 0  # no image was touched


def test_near_copies_may_be_kept_and_scores_are_repeatable(sets: tuple[ImageSet, ImageSet]) -> None:
    train, made = sets
    chosen = settings(drop_near_copies=False, min_class_probability=0.0)
    arguments = ([made], train, chosen)
    first = judged(*arguments)
    assert first["keep"].all()
    assert first["nearest_key"][10] == "r40"
    assert first["nearest_similarity"][10] == pytest.approx(1, abs=1e-5)
    pd.testing.assert_frame_equal(first, judged(*arguments))


def test_reasons_by_hand(sets: tuple[ImageSet, ImageSet]) -> None:
    table = (
        undecided(sets[1])
        .iloc[:4]
        .assign(
            class_probability=[0.5, 0.003, 0.5, 0.5],
            nearest_key=["a", "b", "c", "d"],
            nearest_similarity=[0.5, 0.99, 0.99, 0.99],
        )
    )
    found = decide(
        table, np.array([1.0, 1.0, 1.0, 50.0]), 0.01, CopyLimits(similarity=0.98, distance=10)
    )
    assert found["reason"].tolist() == ["", "label: 0.003 < 0.01", "near-copy of c", ""]
    assert found["keep"].tolist() == [True, False, False, True]


def test_relabelling_by_hand(sets: tuple[ImageSet, ImageSet]) -> None:
    table = (
        undecided(sets[1])
        .iloc[:3]
        .assign(class_probability=0.5, nearest_similarity=[0.5, 0.99, 0.5])
    )
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], np.float32)
    found = relabel(table, probabilities, CLASSES)
    assert found["label"].tolist() == [0, 0, 1]
    assert found["reason"].tolist() == ["", "relabelled from green", "relabelled from blue"]
    found = decide(
        found.assign(nearest_key="a"), np.ones(3), 0.01, CopyLimits(similarity=0.98, distance=10)
    )
    assert found["reason"].tolist() == ["", "near-copy of a", "relabelled from blue"]
    assert found["keep"].tolist() == [True, False, True]


def test_relabelling_gives_an_image_the_class_it_shows(sets: tuple[ImageSet, ImageSet]) -> None:
    train, made = sets
    chosen = settings(relabel=True, drop_near_copies=False)
    table = judged([made], train, chosen)
    wrong = table.set_index("key").loc["s3"]
    assert made.labels[3] == 0
    assert (wrong["label"], wrong["keep"], wrong["reason"]) == (1, True, "relabelled from red")
    assert wrong["class_probability"] > 1 / 3
    assert (table["label"].to_numpy() == made.labels).sum() >= 26
    assert table["keep"].all()


def test_one_real_image_per_class_is_enough_to_judge_by(sets: tuple[ImageSet, ImageSet]) -> None:
    few = coloured(3, 0)
    write(Path("outputs/few"), few, "f")
    train = ImageSet("outputs/few")
    write_features(Path("outputs/few.parquet"), train.keys, MeanColours().embed(few.pixels, 64))
    table = judged([sets[1]], train, settings(), Path("outputs/few.parquet"))
    assert len(table) == 30
    assert table["class_probability"].between(0, 1).all()
    assert set(table["nearest_key"]) <= set(train.keys)


def test_limits_are_those_of_the_nearest_real_pair() -> None:
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    pixels[1] = 10
    pixels[2] = 13
    found = copy_limits(features, LabelledImages(pixels, np.arange(3)))
    assert found.similarity == pytest.approx(0.8, abs=0.01)
    assert found.distance == pytest.approx(3, abs=0.1)
    np.testing.assert_allclose(pixel_distance(pixels[:1], pixels[1:2]), [10])


def test_a_set_that_is_not_judged_is_kept_whole(sets: tuple[ImageSet, ImageSet]) -> None:
    table = undecided(sets[1])
    assert table["keep"].all()
    assert table["class_probability"].isna().all()
    assert (table["reason"] == "").all()
    assert set(CLASSES) == set(sets[1].class_names)

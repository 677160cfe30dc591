"""Corrupted images and sets of another look: what is written, how it is scored, and that training
never meets them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from truelike.config import load_params, parse_params
from truelike.evaluation.ood import masked, ood_accuracy, summarise_ood
from truelike.evaluation.settings import Evaluate
from truelike.evaluation.verdict import Predictions
from truelike.imageset.reading import ImageSet, verify
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml
from truelike.sources.corruptions import CONSTANTS, SEVERITIES, corrupt
from truelike.sources.ood import write_corrupted, write_ood_set
from truelike.sources.settings import Corrupt, OodSet

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["bag", "boot", "coat"]
KINDS = tuple(CONSTANTS)
EVALUATE = Evaluate(confidence=0.95, bootstrap=200, seed=0)


def photos(count: int, side: int = 32) -> np.ndarray:
    """Smooth pictures with an edge, in colour."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    waves = np.sin(6 * x + rng.uniform(0, 6, (count, 3, 1, 1))) * np.cos(
        4 * y + rng.uniform(0, 6, (count, 3, 1, 1))
    )
    pixels = 110 + 70 * waves + 50 * (x > 0.5)
    return pixels.transpose(0, 2, 3, 1).round().astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_grows_with_its_severity_and_repeats(kind):
    pixels = photos(6)
    before = pixels.copy()
    seeds = np.arange(6)
    results = [corrupt(pixels, kind, severity, seeds) for severity in SEVERITIES]
    errors = [np.abs(result.astype(int) - pixels).mean() for result in results]
    assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1]
    for severity, result in zip(SEVERITIES, results, strict=True):
        assert result.dtype == np.uint8
        assert result.shape == pixels.shape
        np.testing.assert_array_equal(corrupt(pixels, kind, severity, seeds), result)
        alone = corrupt(pixels[4:5], kind, severity, seeds[4:5])
        np.testing.assert_array_equal(alone[0], result[4])  # whatever the other images are
    np.testing.assert_array_equal(pixels, before)
    assert corrupt(pixels[:0], kind, 1, seeds[:0]).shape == (0, 32, 32, 3)


def test_noise_has_the_published_spread_and_a_seed_per_image():
    grey = np.full((2, 256, 256, 3), 128, np.uint8)
    noisy = corrupt(grey, "noise", 5, np.array([3, 4])) / 255
    assert noisy.std() == pytest.approx(0.10, rel=0.02)
    assert noisy.mean() == pytest.approx(128 / 255, abs=0.002)
    assert np.abs(noisy[0] - noisy[1]).mean() > 0.05


def test_corruptions_by_hand():
    flat = np.array([[[[40, 80, 20], [0, 0, 0]]]], np.uint8).repeat(2, 1)
    lighter = corrupt(
        flat, "brightness", 5, np.zeros(1)
    )  # value 80 / 255 + 0.3; hue and saturation stay
    factor = (80 / 255 + 0.3) / (80 / 255)
    np.testing.assert_array_equal(lighter[0, 0, 0], np.round(np.array([40, 80, 20]) * factor))
    np.testing.assert_array_equal(lighter[0, 0, 1], np.round(np.full(3, 0.3 * 255)))
    halves = np.zeros((1, 2, 2, 3), np.uint8)
    halves[:, 0] = 200
    np.testing.assert_array_equal(
        corrupt(halves, "contrast", 2, np.zeros(1))[0, :, 0, 0], [150, 50]
    )


def test_brightness_is_that_of_pillows_hsv():
    pixels = photos(1)
    hsv = np.asarray(Image.fromarray(pixels[0]).convert("HSV")).astype(int)
    hsv[..., 2] = np.minimum(hsv[..., 2] + round(0.2 * 255), 255)
    expected = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")).astype(int)
    assert (
        np.abs(corrupt(pixels, "brightness", 4, np.zeros(1))[0] - expected).max() <= 4
    )  # its hue has 8 bits


def test_blur_keeps_the_mean_and_is_as_wide_on_a_larger_image():
    small, large = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 128, 128, 3), np.uint8)
    small[:, :, 16:], large[:, :, 64:] = 240, 240
    profiles = [
        corrupt(edge, "blur", 5, np.zeros(1))[0, 5, :, 0].astype(float) for edge in (small, large)
    ]
    assert profiles[0].mean() == pytest.approx(120, abs=1)
    widths = [((profile > 24) & (profile < 216)).mean() for profile in profiles]
    assert widths[0] == pytest.approx(widths[1], abs=0.04)


def write_set(folder: Path, count: int = 12) -> ImageSet:
    samples = [
        Sample(f"i{n}", n % 3, image, {"split": "test"}) for n, image in enumerate(photos(count))
    ]
    write_image_set(folder, samples, CLASSES)
    return ImageSet(folder)


def test_the_same_images_are_in_each_kind_and_severity(tmp_path):
    test = write_set(tmp_path / "test")
    chosen = Corrupt(images_per_class=2, kinds=("blur", "noise"), seed=0)
    write_corrupted(test, chosen, tmp_path / "corrupted")
    assert verify(tmp_path / "corrupted") == []
    found = ImageSet(tmp_path / "corrupted")
    assert len(found) == 2 * 5 * 6
    groups = found.index.groupby(["corruption", "severity"], sort=False)["source_key"].apply(list)
    assert len(groups) == 10
    assert all(keys == groups.iloc[0] for keys in groups)
    assert found.labels.tolist() == [int(key[1:]) % 3 for key in found.index["source_key"]]
    assert np.bincount(found.labels).tolist() == [20, 20, 20]
    source = test.pixels(test.keys.index(found.index["source_key"][0]))
    np.testing.assert_array_equal(found.pixels(0), corrupt(source[None], "blur", 1, np.zeros(1))[0])
    more = chosen.model_copy(update={"images_per_class": 3})
    write_corrupted(test, more, tmp_path / "more")
    larger = ImageSet(tmp_path / "more")
    for row in (3, 33):  # an image keeps its noise when others join it
        np.testing.assert_array_equal(
            larger.pixels(larger.keys.index(found.keys[row])), found.pixels(row)
        )


@pytest.mark.parametrize(("asked", "count"), [(0, 0), (None, 12 * 5)])
def test_none_or_all_test_images_can_be_corrupted(tmp_path, asked, count):
    settings = Corrupt(images_per_class=asked, kinds=("contrast",), seed=0)
    write_corrupted(write_set(tmp_path / "test"), settings, tmp_path / "corrupted")
    assert len(ImageSet(tmp_path / "corrupted")) == count


def folder_of(path: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for image in range(2):
            Image.fromarray(photos(4, 40)[number + image - 1]).save(path / name / f"{image}.png")
    return path


def test_classes_are_mapped_by_name_and_others_left_out(tmp_path, capsys):
    source = folder_of(tmp_path / "sketches", ["boot", "purse", "zebra"])
    settings = OodSet(source=str(source), class_map={"purse": "bag"})
    write_ood_set("sketches", settings, CLASSES, 32, "crop", tmp_path / "out")
    found = ImageSet(tmp_path / "out")
    assert found.class_names == CLASSES
    assert sorted(zip(found.index["source"], found.index["class_name"], strict=True)) == [
        ("boot/0.png", "boot"),
        ("boot/1.png", "boot"),
        ("purse/0.png", "bag"),
        ("purse/1.png", "bag"),
    ]
    assert found.load().shape == (4, 32, 32, 3)
    assert "1 classes that are not ours are left out: 'zebra'" in capsys.readouterr().err
    fewer = OodSet(source=str(source), class_map={"purse": "bag"}, classes=("bag", "coat"))
    write_ood_set("sketches", fewer, CLASSES, 32, "crop", tmp_path / "fewer")
    assert set(ImageSet(tmp_path / "fewer").index["class_name"]) == {"bag"}
    write_ood_set("sketches", OodSet(source=str(source)), ["x", "y"], 32, "crop", tmp_path / "none")
    assert len(ImageSet(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "nowhere"}, r"ood\.sketches\.source: nowhere is not there"),
        (
            {"class_map": {"purze": "bag"}},
            r"ood\.sketches\.class_map: 'purze' is none of the 2 classes of .*purse",
        ),
        (
            {"class_map": {"purse": "bagg"}},
            r"ood\.sketches\.class_map: 'bagg' is none of the 3 classes of data\.source",
        ),
        (
            {"classes": ("bagg",)},
            r"ood\.sketches\.classes: 'bagg' is none of the 3 classes of data\.source: bag, boot",
        ),
    ],
)
def test_a_wrong_set_is_an_error_that_names_the_parameter(tmp_path, values, message):
    source = folder_of(tmp_path / "sketches", ["boot", "purse"])
    with pytest.raises(TruelikeError, match=message):
        write_ood_set(
            "sketches",
            OodSet(**{"source": str(source)} | values),
            CLASSES,
            32,
            "crop",
            tmp_path / "out",
        )


def test_a_set_is_read_by_its_own_settings(tmp_path, capsys):
    source = folder_of(tmp_path / "sketches/pictures", ["boot", "purse"])
    (source / "boot/bad.png").write_bytes(b"no image")
    (tmp_path / "sketches/cover.png").write_bytes(b"no image")
    settings = OodSet(source=str(tmp_path / "sketches"), class_map={"purse": "bag"})
    with pytest.raises(TruelikeError, match=r"set ood\.sketches\.splits|or list the pictures"):
        write_ood_set("sketches", settings, CLASSES, 32, "crop", tmp_path / "out")
    settings = OodSet(**settings.model_dump() | {"splits": {"test": "pictures"}})
    message = r"(?s)ood\.sketches\.source: 1 images cannot .*pictures/boot/bad\.png.*sketches\.txt"
    with pytest.raises(TruelikeError, match=message):
        write_ood_set("sketches", settings, CLASSES, 32, "crop", tmp_path / "out")
    settings = settings.model_copy(update={"skip_bad": True})
    write_ood_set("sketches", settings, CLASSES, 32, "crop", tmp_path / "out")
    assert len(ImageSet(tmp_path / "out")) == 4
    printed = capsys.readouterr().err
    assert "ood.sketches.skip_bad: left out 1 images" in printed
    assert "2 classes, 5 test images\n  boot: 3 test\n  purse: 2 test" in printed


def test_a_deep_set_is_stretched_on_request(tmp_path, capsys):
    (tmp_path / "cells/boot").mkdir(parents=True)
    cells = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(cells).save(tmp_path / "cells/boot/0.png")
    for depth, brightest in (("full", 16), ("percentile", 255)):
        settings = OodSet(source=str(tmp_path / "cells"), depth=depth)
        write_ood_set("cells", settings, CLASSES, 32, "crop", tmp_path / depth)
        assert ImageSet(tmp_path / depth).pixels(0).max() == brightest
    assert capsys.readouterr().err.count("less than a quarter") == 1


@pytest.mark.parametrize(
    ("ood", "message"),
    [
        ({"noise": {"source": "x"}}, r"ood: 'noise' is a name of corrupted images"),
        ({"My set": {"source": "x"}}, r"ood\.My set"),
        (
            {"sketches": {"source": "x", "clases": []}},
            r"unknown parameter 'ood\.sketches\.clases'; did you mean 'classes'",
        ),
    ],
)
def test_wrong_parameters_of_a_set(ood, message):
    with pytest.raises(TruelikeError, match=message):
        parse_params(read_yaml(ROOT / "recipes/default.yaml") | {"ood": ood})


def test_masked_logits_leave_the_softmax_of_the_others():
    logits = np.random.default_rng(0).standard_normal((2, 5, 4))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    predictions = Predictions(probs, np.array([1, 3, 3, 1, 1]), [0, 1], list("abcde"))
    for classes, kept in ((None, [1, 3]), ([0, 1, 3], [0, 1, 3])):
        others = np.setdiff1d(np.arange(4), kept)
        hidden = logits.copy()
        hidden[..., others] = -np.inf
        expected = np.exp(hidden) / np.exp(hidden).sum(-1, keepdims=True)
        np.testing.assert_allclose(masked(predictions, classes).probs, expected)


def sure(hits: np.ndarray, labels: np.ndarray, keys: list[str]) -> Predictions:
    """Predictions (seeds, N) that are right where `hits` says so, and of the next class
    elsewhere.
    """
    chosen = np.where(hits, labels, (labels + 1) % 3)
    return Predictions(np.eye(3)[chosen], labels, list(range(len(hits))), keys)


def test_mean_corruption_error_by_hand(tmp_path):
    """Error rates of two corruptions: real 0.4 and 0.2, other 0.2 and 0.3: mCE = (0.5 + 1.5) / 2 =
    100 %.
    """
    keys = [f"i{n}" for n in range(10)]
    labels = np.arange(10) % 3
    index = pd.DataFrame(
        [(kind, severity, key) for kind in ("a", "b") for severity in SEVERITIES for key in keys],
        columns=["corruption", "severity", "source_key"],
    )
    corrupted = {}
    for arm, wrong in (("real", (4, 2)), ("other", (2, 3))):
        right = np.concatenate([np.tile(np.arange(10) >= count, 5) for count in wrong])
        corrupted[arm] = sure(
            np.stack([right, right]), np.tile(labels, 10), [f"{n}" for n in range(100)]
        )
    order = np.random.default_rng(0).permutation(10)
    clean_hits = np.array([[key != "i3" for key in np.array(keys)[order]]] * 2)
    clean = dict.fromkeys(
        corrupted, sure(clean_hits, labels[order], np.array(keys)[order].tolist())
    )
    table, errors = ood_accuracy({"corrupted": corrupted}, {}, CLASSES, index, clean, EVALUATE)
    assert errors["real"].value == 100
    assert errors["real"].low == errors["real"].high == pytest.approx(100)
    numbers = summarise_ood(table, errors)
    assert numbers["accuracy"]["a"]["real"]["value"] == pytest.approx(60)
    assert numbers["accuracy"]["corrupted"]["other"]["value"] == pytest.approx(75)
    assert numbers["mean_corruption_error"]["other"]["value"] == pytest.approx(100)
    assert (
        numbers["mean_corruption_error"]["other"]["low"]
        < 100
        < numbers["mean_corruption_error"]["other"]["high"]
    )
    severities = table[
        (table["set"] == "corrupted") & (table["arm"] == "real") & table["severity"].notna()
    ]
    assert severities["severity"].tolist() == [0, 1, 2, 3, 4, 5]
    assert severities["value"].tolist() == pytest.approx([90, 70, 70, 70, 70, 70])
    assert (severities["low"] <= severities["value"]).all()


def test_a_reference_without_errors_has_no_mean_corruption_error():
    index = pd.DataFrame([("a", s, f"i{n}") for s in SEVERITIES for n in range(3)])
    index.columns = ["corruption", "severity", "source_key"]
    right = sure(np.ones((1, 15), bool), np.tile(np.arange(3), 5), [str(n) for n in range(15)])
    clean = sure(np.ones((1, 3), bool), np.arange(3), ["i0", "i1", "i2"])
    _, errors = ood_accuracy(
        {"corrupted": {"real": right}}, {}, CLASSES, index, {"real": clean}, EVALUATE
    )
    assert errors == {"real": None}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.booleans(), min_size=4, max_size=12),
    st.sampled_from([None, ("bag", "boot"), ("boot", "coat")]),
)
def test_accuracy_on_a_set_is_the_share_of_hits_among_its_classes(hits, classes):
    """Wrong predictions go to a class outside the mask, so masking makes them right or leaves them
    undecided.
    """
    labels = np.full(len(hits), 1)
    predictions = sure(
        np.array([hits]), labels, [str(n) for n in range(len(hits))]
    )  # wrong ones say coat
    sets = {"sketches": OodSet(source="x", classes=classes), "empty": OodSet(source="x")}
    empty = pd.DataFrame(columns=["corruption", "severity", "source_key"])
    table, errors = ood_accuracy(
        {"sketches": {"real": predictions}}, sets, CLASSES, empty, {}, EVALUATE
    )
    assert table["set"].tolist() == ["sketches"]
    assert errors == {}
    if classes == ("boot", "coat"):
        assert table["value"].item() == pytest.approx(100 * np.mean(hits))
    assert table["low"].item() <= table["value"].item() <= table["high"].item()


def test_the_demos_sets_are_small():
    params = load_params(ROOT / "recipes/default.yaml")
    assert params.corrupt.images_per_class * len(params.corrupt.kinds) * len(SEVERITIES) <= 300
    assert list(params.ood) == ["catalogue"]

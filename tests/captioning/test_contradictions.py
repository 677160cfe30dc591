"""Captions that name another class than the label: which they are, and what becomes of them."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.models import float32
from truelike.captioning.contradictions import ClassNames, settle_contradictions, singular
from truelike.config import load_params
from truelike.imageset.reading import ImageSet

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["t-shirt", "trouser", "dress", "shirt", "ankle boot", "crane, hoisting crane"]
CAPTION = load_params(ROOT / "recipes/default.yaml").caption


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a white t-shirt on black", ["t-shirt"]),
        ("a white t - shirt on black", ["t-shirt"]),  # as BERT's tokenizer writes it
        ("two T-Shirts", ["t-shirt"]),
        ("a tshirt, a t shirt", ["t-shirt", "t-shirt"]),
        ("a white shirt", ["shirt"]),
        ("shirts and trousers", ["shirt", "trouser"]),
        ("three dresses", ["dress"]),
        ("a pair of ankle boots", ["ankle boot"]),
        ("an ankle-boot", ["ankle boot"]),
        ("a boot", []),
        ("a sweat-shirt, a nightshirt", []),  # another word that ends in a class's name
        ("dressed up", []),
        ("hoisting cranes", ["crane, hoisting crane"]),
        ("a Crane.", ["crane, hoisting crane"]),
        ("", []),
    ],
)
def test_names_in_a_caption(caption, named):
    found = ClassNames.of(CLASSES).mentions(caption)
    assert [CLASSES[label] for mention in found for label in mention.labels] == named


def test_a_hyphenated_class_is_not_the_class_in_its_name():
    assert ClassNames.of(["shirt", "coat"]).mentions("a t-shirt") == []


@pytest.mark.parametrize(
    ("caption", "own", "contradicts"),
    [
        ("a white shirt", "t-shirt", True),
        ("a white t-shirt", "shirt", True),
        ("a white t-shirt", "t-shirt", False),
        ("a boot on black", "ankle boot", False),
        ("shirts and trousers", "trouser", False),  # its own class as well
        ("something white", "shirt", False),
    ],
)
def test_a_caption_contradicts_if_it_names_another_class_and_not_its_own(caption, own, contradicts):
    found = ClassNames.of(CLASSES).contradiction(caption, CLASSES.index(own))
    assert bool(found) is contradicts
    if found:
        assert caption[found.start : found.end] in ("shirt", "t-shirt")


def test_classes_of_one_name_do_not_contradict_each_other():
    assert ClassNames.of(["crane", "hat", "Crane"]).contradiction("a crane", 2) is None


@pytest.mark.parametrize(
    "words",
    [
        *("dress dresses", "bus buses", "box boxes", "watch watches", "shoe shoes", "vase vases"),
        *("potato potatoes", "lady ladies", "glove gloves", "man men", "knife knives"),
        *("glass glasses", "hat hats", "iris", "gas"),
    ],
)
def test_singular_and_plural_are_one_word(words):
    one, *more = words.split()
    assert {singular(word) for word in (one, *more)} == {one}


def planted(real: ImageSet, *captions: str) -> pd.DataFrame:
    """Captions of the images 0, 1, ... of boot, bag, boot, ...; the others say nothing."""
    texts = [*captions, *["something"] * (len(real) - len(captions))]
    return pd.DataFrame({"key": real.keys, "caption": texts, "truncated": True})


def test_they_are_counted_and_kept(real, captioner):
    table = planted(real, "a red bag", "a red bag", "white boots", "a white boot")
    keep = CAPTION.model_copy(update={"contradicting": "keep"})
    kept, summary = settle_contradictions(table, real, float32(captioner), keep)
    pd.testing.assert_frame_equal(kept, table)
    assert summary == {
        "captions": 10,
        "contradicting": 2,
        "by_class": {"boot": 1, "bag": 1},
        "recaptioned": 0,
        "dropped": 0,
    }


def test_dropped_ones_are_empty_and_not_cut(real, captioner):
    drop = CAPTION.model_copy(update={"contradicting": "drop"})
    table = planted(real, "a red bag", "a red bag")
    found, summary = settle_contradictions(table, real, float32(captioner), drop)
    assert found["caption"].tolist() == ["", *table["caption"][1:]]
    assert found["truncated"].tolist() == [False] + [True] * 9
    assert (summary["contradicting"], summary["dropped"]) == (1, 1)
    assert table["caption"][0] == "a red bag"


def test_a_captioner_goes_on_from_its_own_words_and_the_class(
    real, captioner, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    again = CAPTION.model_copy(update={"max_tokens": 3, "batch_size": 1})
    table = planted(real, "a red bag on white", "a bag", "bags", "boots").assign(truncated=False)
    found, summary = settle_contradictions(table, real, float32(captioner), again)
    texts = found["caption"].tolist()
    assert [text.split()[:-3] for text in texts[:4]] == [
        ["a", "red", "boot"],
        [],
        ["boot"],
        ["bag"],
    ]
    assert texts[1] == "a bag"
    assert texts[4:] == table["caption"].tolist()[4:]
    assert found["truncated"].tolist() == [True, False, True, True] + [False] * 6
    assert (summary["contradicting"], summary["recaptioned"], summary["dropped"]) == (3, 3, 0)

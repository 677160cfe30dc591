from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import float32
from tests.support.tiny_models import LENGTH, make_tokenizer
from truelike.captioning import captions as captions_module
from truelike.captioning.captions import (
    caption_images,
    no_captions,
    read_caption_file,
    rewrite_captions,
    right_length,
)
from truelike.captioning.settings import Rewrite
from truelike.config import parse_params
from truelike.generator.prompts import (
    PromptReader,
    base_prompt,
    inversion_prompt,
    sampling_prompt,
    training_prompt,
    truncated,
)
from truelike.generator.settings import Prompts
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import read_captions, read_rewrites, write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.recipes import use_recipes
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml
from truelike.synthesis.plan import caption_of

ROOT = Path(__file__).resolve().parents[2]
NOTHING = {
    "definitions": {},
    "caption": "",
    "context": "own",
    "style": "",
    "quality": "",
    "negative": "",
    "seed": 0,
}


def make_prompts(**pieces: object) -> Prompts:
    return Prompts.model_validate(NOTHING | pieces)


OURS = make_prompts(
    base="a photo of a {class}",
    caption=", {caption}",
    style=", in the style of {style}",
    quality=", best quality",
    negative="blurry",
)
RF = make_prompts(base="photo of {class}", caption=", {caption}", quality=", best quality")


@pytest.mark.parametrize(
    ("caption", "style", "expected"),
    [
        ("", "", "a photo of a boot"),
        ("a white boot", "", "a photo of a boot, a white boot"),
        ("", "<style>", "a photo of a boot, in the style of <style>"),
        (
            "a white boot",
            "<style> <style>_1",
            "a photo of a boot, a white boot, in the style of <style> <style>_1",
        ),
    ],
)
def test_pieces_are_joined_where_their_material_exists(
    caption: str, style: str, expected: str
) -> None:
    assert training_prompt(OURS, "k", "boot", caption, style) == expected
    assert sampling_prompt(OURS, "k", "boot", caption, style) == expected + ", best quality"


def recipe_prompts(name: str, tmp_path: Path) -> tuple[Prompts, str]:
    """The prompts of the shipped settings with a recipe, and its invert.template."""
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "recipes/default.yaml").read_text())
    use_recipes([name], params)
    settings = parse_params(read_yaml(params))
    return settings.prompts, settings.invert.template


def test_prompts_of_real_fake_byte_for_byte(tmp_path: Path) -> None:
    prompts, _ = recipe_prompts("real-fake", tmp_path)
    assert (
        training_prompt(prompts, "k", "tench", "a man holding a fish", "")
        == "photo of tench, a man holding a fish"
    )
    assert (
        sampling_prompt(prompts, "k", "tench", "a man", "") == "photo of tench, a man, best quality"
    )
    assert prompts.negative == "distorted, unrealistic, blurry, out of frame, cropped, deformed"


def test_prompts_of_captions_are_prompts_byte_for_byte(tmp_path: Path) -> None:
    prompts, _ = recipe_prompts("captions-are-prompts", tmp_path)
    assert (
        sampling_prompt(prompts, "k", "tench", "a man, a fish", "")
        == "a photo of tench, a man, a fish"
    )
    assert sampling_prompt(prompts, "k", "tench", "", "") == "a photo of tench"
    assert prompts.negative == ""


def test_prompts_of_bridged_transfer_byte_for_byte(tmp_path: Path) -> None:
    prompts, template = recipe_prompts("bridged-transfer", tmp_path)
    expected = "a Boeing 737 photo in the style of <style>"
    assert inversion_prompt(template, "Boeing 737", "<style>") == expected
    assert sampling_prompt(prompts, "k", "Boeing 737", "", "<style>") == expected


def test_random_templates_byte_for_byte(tmp_path: Path) -> None:
    prompts, _ = recipe_prompts("random-templates", tmp_path)
    drawn = {sampling_prompt(prompts, f"image-{number}", "boot", "", "") for number in range(1000)}
    assert drawn == {template.replace("{class}", "boot") for template in prompts.base}
    assert "a close-up of a boot" in drawn


TEMPLATES = make_prompts(base=["a {class}", "the {class}", "one {class}"])


def test_a_drawn_template_by_hand() -> None:
    # sha256("0/boot-1") begins 58c777510d0d9d43, sha256("1/boot-1") f952f17960de8101
    first, second = int("58c777510d0d9d43", 16) % 3, int("f952f17960de8101", 16) % 3
    assert base_prompt(TEMPLATES, "boot-1", "x") == ["a x", "the x", "one x"][first]
    assert (
        base_prompt(TEMPLATES.model_copy(update={"seed": 1}), "boot-1", "x")
        == ["a x", "the x", "one x"][second]
    )


def test_templates_are_drawn_evenly() -> None:
    counts = Counter(base_prompt(TEMPLATES, f"image-{number}", "x") for number in range(3000))
    assert all(abs(count - 1000) < 5 * np.sqrt(3000 * 2 / 9) for count in counts.values())


def test_a_definition_follows_its_class() -> None:
    prompts = make_prompts(
        base="a photo of a {class}, {definition}", definitions={"crane": "a large wading bird"}
    )
    assert (
        training_prompt(prompts, "k", "crane", "", "") == "a photo of a crane, a large wading bird"
    )
    with pytest.raises(
        TruelikeError, match=r"prompts\.definitions: none for the class 'boot'.*defined: 'crane'"
    ):
        training_prompt(prompts, "k", "boot", "", "")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ([], "must not be empty"),
        (["a {class}", ""], "must not be empty"),
        (["a {class}", "b"], r"\{class\}, found 'b'"),
    ],
)
def test_bad_lists_of_templates_are_refused(base: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_prompts(base=base)


def test_braces_in_captions_classes_and_definitions_are_left_alone() -> None:
    assert training_prompt(OURS, "k", "{x}", "a {class} {", "") == "a photo of a {x}, a {class} {"
    prompts = make_prompts(base="{class}: {definition}", definitions={"{definition}": "{class}"})
    assert training_prompt(prompts, "k", "{definition}", "", "") == "{definition}: {class}"


def test_truncated_prompts_are_counted_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    fits, too_long = "x" * (LENGTH - 2), "x" * (LENGTH - 1)
    reader = PromptReader(make_tokenizer(), LENGTH)
    assert truncated(reader, [fits, too_long, fits, too_long]) == [False, True, False, True]
    assert f"2 of 4 prompts exceed {LENGTH} tokens" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["key", "source"])
@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_captions_from_a_file_are_matched_by_image_not_by_order(
    real: ImageSet, tmp_path: Path, by: str, end: str
) -> None:
    table = pd.DataFrame(
        {by: real.index[by], "caption": [f" no {n}\n " for n in range(len(real))]}
    ).iloc[::-1]
    path = tmp_path / f"captions.{end}"
    table.to_csv(path, index=False) if end == "csv" else table.to_parquet(path)
    captions = read_caption_file(real, str(path))
    assert captions["key"].tolist() == real.keys
    assert captions["caption"].tolist() == [f"no {n}" for n in range(len(real))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "no caption for 1 of 10 images, the first is 'image-0'"),
        (lambda t: t.assign(caption=["", *t["caption"][1:]]), "no caption for 1 of 10 images"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "'image-0' has more than one caption"),
        (
            lambda t: t.rename(columns={"caption": "words"}),
            r"must have the columns caption \(or text\) and key, source",
        ),
    ],
)
def test_bad_caption_files_are_refused(
    real: ImageSet, tmp_path: Path, change, message: str
) -> None:
    path = tmp_path / "captions.csv"
    change(pd.DataFrame({"key": real.keys, "caption": "x"})).to_csv(path, index=False)
    with pytest.raises(TruelikeError, match=message):
        read_caption_file(real, str(path))


def test_a_missing_caption_file_is_named(real: ImageSet) -> None:
    with pytest.raises(TruelikeError, match=r"models\.captioner: nowhere\.csv: no such file"):
        read_caption_file(real, "nowhere.csv")


def test_class_only_prompts_have_an_empty_caption_for_every_image(real: ImageSet) -> None:
    table = no_captions(real)
    assert table["key"].tolist() == real.keys
    assert set(table["caption"]) == {""}


def test_captions_of_synthetic_images_are_those_of_the_real_images_they_were_made_for(
    real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [3, 0, 9]
    samples = [
        Sample(f"{real.keys[n]}-r0", 0, real.pixels(n), {"source_key": real.keys[n]}) for n in order
    ]
    write_image_set(tmp_path / "0", samples, ["boot"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(captions_module, "open_captioner", lambda model: Brightness())
    (tmp_path / "config.json").touch()
    table = caption_images(ImageSet(tmp_path / "0"), float32(tmp_path), 16, 2)
    assert table["key"].tolist() == [real.keys[n] for n in order]
    assert table["caption"].tolist() == [f"{real.pixels(n).mean():.3f}" for n in order]


class Brightness:
    """A captioner that says how bright an image is."""

    def caption(
        self, pixels: np.ndarray, max_tokens: int, instructions: object
    ) -> tuple[list[str], list[bool]]:
        return [f"{image.mean():.3f}" for image in pixels], [False] * len(pixels)


class Echo:
    """A rewriter whose n-th answer repeats the request and adds n words, and that notes the
    seeds.
    """

    def __init__(self) -> None:
        self.seeds: dict[str, int] = {}

    def rewrite(self, request: str, count: int, max_tokens: int, seed: int) -> list[str]:
        self.seeds[request] = seed
        return [" ".join([request, *["word"] * number]) for number in range(count)]


REWRITE = Rewrite(count=5, instruction="again: {caption}", max_tokens=9, seed=0)


@pytest.mark.parametrize(
    ("words", "kept"), [(0, False), (5, False), (6, True), (64, True), (65, False)]
)
def test_rewrites_are_kept_by_their_length(words: int, kept: bool) -> None:
    assert right_length(" ".join(["word"] * words)) is kept


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Echo:
    """The rewriter that is opened in an empty project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "config.json").touch()
    opened = Echo()
    monkeypatch.setattr(captions_module, "open_rewriter", lambda model: opened)
    return opened


def test_rewrites_of_right_length_are_stored_beside_their_caption(
    tmp_path: Path, echo: Echo
) -> None:
    captions = pd.DataFrame({"key": ["a", "b"], "caption": ["a red boot", "x"], "truncated": False})
    table = rewrite_captions(captions, float32(tmp_path), REWRITE)
    write_table(tmp_path / "captions.parquet", table)
    expected = [
        ["again: a red boot word word", "again: a red boot word word word"],
        ["again: x word word word word"],
    ]
    expected[0].append("again: a red boot word word word word")
    assert read_rewrites(tmp_path / "captions.parquet", ["b", "a"]) == expected[::-1]
    assert read_captions(tmp_path / "captions.parquet", ["b", "a"]) == ["x", "a red boot"]


def test_rewrites_do_not_depend_on_other_images(tmp_path: Path, echo: Echo) -> None:
    captions = pd.DataFrame({"key": ["a", "b", "c"], "caption": ["one", "two", "one"]})
    rewrite_captions(captions.iloc[1:2], float32(tmp_path), REWRITE)
    alone = dict(echo.seeds)
    rewrite_captions(captions, float32(tmp_path), REWRITE)
    assert alone["again: two"] == echo.seeds["again: two"] != echo.seeds["again: one"]


def test_tables_without_rewrites_have_none(real: ImageSet, tmp_path: Path) -> None:
    write_table(tmp_path / "captions.parquet", no_captions(real))
    assert read_rewrites(tmp_path / "captions.parquet", real.keys[:2]) == [[], []]


@given(st.lists(st.text(min_size=1), max_size=6), st.integers(0, 50))
def test_replicas_take_turns_with_the_rewrites(rewrites: list[str], replica: int) -> None:
    key, caption = caption_of("k", "own", rewrites, replica)
    if rewrites:
        assert key == f"k/{replica % len(rewrites)}"
        assert caption == rewrites[replica % len(rewrites)]
    else:
        assert (key, caption) == ("k", "own")


def test_a_class_prompt_names_no_caption() -> None:
    assert caption_of("k", "", [], 3) == ("", "")

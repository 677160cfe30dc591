from pathlib import Path

import pandas as pd
import pytest

from tests.tiny_models import LENGTH, make_tokenizer
from truelike.captions import no_captions, read_caption_file
from truelike.config import Prompts
from truelike.data.imageset import ImageSet
from truelike.errors import TruelikeError
from truelike.prompts import inversion_prompt, sampling_prompt, training_prompt, truncated

OURS = Prompts(
    base="a photo of a {class}",
    caption=", {caption}",
    style=", in the style of {style}",
    quality=", best quality",
    negative="blurry",
)
RF = Prompts(base="photo of {class}", caption=", {caption}", style="", quality=", best quality", negative="")


@pytest.mark.parametrize(
    ("caption", "style", "expected"),
    [
        ("", "", "a photo of a boot"),
        ("a white boot", "", "a photo of a boot, a white boot"),
        ("", "<style>", "a photo of a boot, in the style of <style>"),
        ("a white boot", "<style> <style>_1", "a photo of a boot, a white boot, in the style of <style> <style>_1"),
    ],
)
def test_pieces_are_joined_where_their_material_exists(caption: str, style: str, expected: str) -> None:
    assert training_prompt(OURS, "boot", caption, style) == expected
    assert sampling_prompt(OURS, "boot", caption, style) == expected + ", best quality"


def test_the_prompts_of_the_papers_are_reproduced_byte_for_byte() -> None:
    assert training_prompt(RF, "tench", "a man holding a fish", "") == "photo of tench, a man holding a fish"
    assert sampling_prompt(RF, "tench", "a man", "") == "photo of tench, a man, best quality"
    style = inversion_prompt("a {class} photo in the style of {style}", "Boeing 737", "<style>")
    assert style == "a Boeing 737 photo in the style of <style>"


def test_braces_in_captions_and_classes_are_left_alone() -> None:
    assert training_prompt(OURS, "{x}", "a {class} {", "") == "a photo of a {x}, a {class} {"


def test_truncated_prompts_are_counted_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    fits, too_long = "x" * (LENGTH - 2), "x" * (LENGTH - 1)
    assert truncated(make_tokenizer(), [fits, too_long, fits, too_long]) == [False, True, False, True]
    assert f"2 of 4 prompts exceed {LENGTH} tokens" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["key", "source"])
@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_captions_from_a_file_are_matched_by_image_not_by_order(
    real: ImageSet, tmp_path: Path, by: str, end: str
) -> None:
    table = pd.DataFrame({by: real.index[by], "caption": [f" no {n}\n " for n in range(len(real))]}).iloc[::-1]
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
        (lambda t: t.rename(columns={"caption": "text"}), "must have the columns caption and key or source"),
    ],
)
def test_bad_caption_files_are_refused(real: ImageSet, tmp_path: Path, change, message: str) -> None:
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

"""What does not fit a generator is said before its weights are read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_models
from tests.support.models import float32
from tests.support.tiny_flows import FLOWS, save_flow
from truelike.adaptation.settings import Invert
from truelike.config import load_params
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model
from truelike.synthesis.checks import check_generator
from truelike.synthesis.settings import Naive, PartialSet, Synthesize

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["boot", "bag"]


@dataclass(frozen=True)
class Chosen:
    """The parameters that are checked."""

    generator: Model
    encoder: Model
    prompts: Prompts
    invert: Invert
    visual_guidance: VisualGuidance
    naive: Naive
    synthesize: Synthesize
    partial: dict[str, PartialSet]

    @property
    def accelerated(self) -> Model:
        return self.generator


@pytest.fixture(scope="module", params=["sd1"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of a family, without its weights."""
    made = tiny_models.save_generator(tmp_path_factory.mktemp("g") / "generator", request.param)
    for file in made.rglob("*.safetensors"):
        file.unlink()
    return made


@pytest.fixture
def chosen(folder: Path, encoder: Path) -> Chosen:
    params = load_params(ROOT / "recipes/default.yaml")
    short = {"base": "a {class}", "caption": " {caption}", "style": " {style}"}
    return Chosen(
        generator=float32(folder),
        encoder=float32(encoder),
        prompts=params.prompts.model_copy(update=short),
        invert=params.invert.model_copy(update={"template": "{class} {style}"}),
        visual_guidance=params.visual_guidance,
        naive=params.naive,
        synthesize=params.synthesize,
        partial={},
    )


def refused(
    chosen: Chosen,
    message: str,
    names: list[str] = CLASSES,
    side: int | tuple[int, int] = 16,
) -> None:
    size = (side, side) if isinstance(side, int) else side
    with pytest.raises(TruelikeError, match=message):
        check_generator(chosen, names, size)


def changed(chosen: Chosen, section: str, **update: Any) -> Chosen:
    return replace(chosen, **{section: getattr(chosen, section).model_copy(update=update)})


def test_what_fits_passes_without_any_weights(chosen: Chosen) -> None:
    check_generator(chosen, CLASSES, (16, 32))
    check_generator(changed(chosen, "visual_guidance", kind="image"), CLASSES, (16, 16))


def test_images_of_another_size_than_the_vae_takes(chosen: Chosen) -> None:
    refused(chosen, r"data\.resolution: images are 15 x 15 pixels.* multiples of 2", side=15)


def test_a_type_that_is_not_for_the_device(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUELIKE_DEVICE", "cpu")
    half = replace(chosen, generator=replace(chosen.generator, dtype="float16"))
    refused(half, r"models\.dtype: float16 is for accelerators")


def test_an_accelerator_that_is_no_file_of_weights(chosen: Chosen, tmp_path: Path) -> None:
    pointer = tmp_path / "fast.yaml"
    fast = replace(chosen, generator=replace(chosen.generator, accelerator=str(pointer)))
    refused(fast, r"fast\.yaml: no such file of weights")
    pointer.write_text("hub: a/b\n")
    refused(fast, r"fast\.yaml: must hold hub, file, revision")
    pointer.write_text("# none\n")
    check_generator(fast, CLASSES, (16, 16))


def test_an_encoder_of_another_width(chosen: Chosen, tmp_path: Path) -> None:
    wide = replace(chosen, encoder=float32(tiny_models.save_encoder(tmp_path / "wide", 48)))
    check_generator(wide, CLASSES, (16, 16))  # visual guidance is off
    guided = changed(wide, "visual_guidance", kind="class_mean")
    refused(guided, r"models\.encoder gives features of width 48 and .* states have width 32")


@pytest.mark.parametrize("folder", ["sd3"], indirect=True)
def test_what_a_flow_matching_family_lacks(chosen: Chosen) -> None:
    without = changed(chosen, "invert", enabled=False)
    check_generator(without, CLASSES, (16, 16))
    refused(chosen, r"invert\.enabled: a StableDiffusion3Pipeline cannot learn a style")
    refused(changed(without, "naive", sampler="ddim"), r"naive\.sampler: 'ddim' cannot sample")
    refused(without, r"multiples of 4", side=18)  # a patch of 2 of latents of factor 2


@pytest.mark.parametrize("family", FLOWS)
def test_what_flow_transformers_lack_and_where_they_cut(
    chosen: Chosen, tmp_path: Path, family: str
) -> None:
    folder = save_flow(tmp_path / family, family)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    with_style = replace(chosen, generator=float32(folder))
    refused(with_style, r"invert\.enabled: an? \w+Pipeline cannot learn a style", side=32)
    other = changed(with_style, "invert", enabled=False)
    check_generator(other, CLASSES, (32, 32))
    refused(other, r"data\.resolution: images are 34 x 33", side=(33, 34))
    limit = {"sana": 299, "lumina2": 256, "qwen": 546}.get(family, 512)
    endless = changed(other, "prompts", base="a {class}" + limit * "x")
    refused(endless, rf"prompts: .* tokens and .* cuts after {limit}, so", side=32)


def test_a_style_that_every_prompt_would_lose(chosen: Chosen) -> None:
    """The tokenizer takes 24 tokens, two of which begin and end a prompt."""
    many = changed(chosen, "invert", tokens_per_style=30)
    refused(many, r"prompts: 'a boot x <style> <style>_1 .* tokens and .* cuts after 24")
    long = changed(chosen, "prompts", base="a very very very long sentence of a {class}")
    refused(long, r"prompts: 'a very very .* cuts after 24, so that not all of class, style")
    template = changed(chosen, "invert", template="a long sentence before a {class} and {style}")
    refused(template, r"invert\.template: 'a long sentence before a boot and <style>' has")


def test_a_class_with_a_long_name(chosen: Chosen) -> None:
    refused(chosen, r"'a wellington-wellington boots x", ["bag", "wellington-wellington boots"])


def test_a_pipeline_of_another_kind(chosen: Chosen, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    refused(replace(chosen, generator=float32(tmp_path)), r"holds a PixArtAlphaPipeline, expected")

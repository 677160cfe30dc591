"""Stable Diffusion 2.x, XL and 3 from a checkpoint to images: stock diffusers reads what we learn,
and agrees.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
from safetensors.torch import load_file

from tests.support import tiny_models
from tests.support.jobs import OFF, PROMPTS, SETTINGS
from tests.support.learning import ADAPT, INVERT, assert_same_layers, training_images
from tests.support.models import float32
from truelike.adaptation.inversion import learn_style, style_of
from truelike.adaptation.lora import learn_adapter, lora_shape
from truelike.generator.adapter import write_adapter
from truelike.generator.families import denoiser_of
from truelike.generator.generator import Generator
from truelike.generator.guidance import guidance_vectors
from truelike.generator.samplers import image_rngs, make_sampler
from truelike.generator.settings import VisualGuidance
from truelike.generator.style import write_style
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.run import open_renderer, plan_of

SHORT = {"steps": 2, "lr": 0.1}


@dataclass(frozen=True)
class Learned:
    """A checkpoint and the style (without, for a family that has none) and the adapter learned with
    it.
    """

    family: str
    checkpoint: Path
    style: Path
    adapter: Path


@pytest.fixture(scope="module", params=["sd2", "sdxl", "sd3"])
def learned(
    request: pytest.FixtureRequest, real: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Learned:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = tiny_models.save_generator(folder / "checkpoint", request.param)
    found = Learned(request.param, checkpoint, folder / "style", folder / "adapter")
    found.style.mkdir()
    found.adapter.mkdir()
    with_style = request.param != "sd3"
    settings = INVERT.model_copy(update=SHORT | {"enabled": with_style})
    rows = None
    if with_style:
        opened = Generator.open(float32(checkpoint))
        rows = learn_style(opened, real, settings, "float32", found.style)
    write_style(found.style, style_of(settings, real.class_names), rows)
    opened = Generator.open(float32(checkpoint))
    style = opened.add_style(found.style)
    prompts = [f"a {name} {style.text(name)}" for name in real.index["class_name"]]
    settings = ADAPT.model_copy(update=SHORT)
    images = training_images(opened, real, prompts)
    learn_adapter(opened, images, settings, "float32", found.adapter)
    write_adapter(found.adapter, opened.pipeline, lora_shape(opened, settings), style.fingerprint)
    return found


def open_stock(learned: Learned) -> DiffusionPipeline:
    """The checkpoint with style and adapter, by diffusers alone."""
    pipeline = DiffusionPipeline.from_pretrained(learned.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(learned.adapter)
    if learned.family == "sd2":
        for token, vector in load_file(learned.style / "learned_embeds.safetensors").items():
            pipeline.load_textual_inversion({token: vector})
    if learned.family == "sdxl":
        embeds = load_file(learned.style / "learned_embeds.safetensors")
        first, second = (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
        for name, (tokenizer, encoder) in (("clip_l", first), ("clip_g", second)):
            pipeline.load_textual_inversion(
                embeds[name], token="<style>", tokenizer=tokenizer, text_encoder=encoder
            )
    return pipeline


def job_of(learned: Learned, real: ImageSet, **settings) -> SynthesisJob:
    return SynthesisJob(
        stage="synthesize",
        generator=float32(learned.checkpoint),
        prompts=PROMPTS,
        settings=SETTINGS.model_copy(update={"sampler": "euler"} | settings),
        visual_guidance=OFF,
        real=real.folder,
        style=learned.style,
        adapter=learned.adapter,
    )


@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_stock_diffusers_makes_the_same_images(
    learned: Learned, real: ImageSet, strength: float
) -> None:
    job = job_of(learned, real, strength=strength)
    rows = plan_of(job, real, 0).iloc[:2]
    renderer = open_renderer(job, real)
    stock, how = open_stock(learned), {"height": 16, "width": 16}
    stock.scheduler = make_sampler("euler", stock.scheduler)
    if strength < 1:
        pixels = torch.from_numpy(real.load([0, 1]))
        how = {"image": renderer.generator.to_latents(pixels), "strength": strength}
        stock = AutoPipelineForImage2Image.from_pipe(stock)
    images = stock(
        # the stock pipeline writes <style> out as <style> <style>_1
        prompt=[prompt.replace("<style> <style>_1", "<style>") for prompt in rows["prompt"]],
        negative_prompt=[PROMPTS.negative] * 2,
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance_scale,
        generator=image_rngs(rows["seed"].tolist()),
        output_type="np",
        **how,
    ).images
    made = renderer.render(rows)
    assert made.shape == (2, 16, 16, 3)
    assert np.abs(made - np.round(images * 255)).max() <= 1


def test_stock_diffusers_loads_every_layer_of_the_adapter(learned: Learned) -> None:
    written = assert_same_layers(learned.adapter, denoiser_of(open_stock(learned)))
    adapted = {
        part for name in written for part in name.split(".") if part.startswith(("to_", "add_"))
    }
    joint = (
        {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
        if learned.family == "sd3"
        else set()
    )
    assert adapted == {"to_q", "to_k", "to_v", "to_out"} | joint


def test_style_and_adapter_change_the_images(learned: Learned, real: ImageSet) -> None:
    job = job_of(learned, real)
    rows = plan_of(job, real, 0).iloc[:2]
    made = open_renderer(job, real).render(rows)
    plain = open_renderer(job_of(learned, real, lora_scale=0.0), real)
    assert not np.array_equal(plain.render(rows), made)
    assert ("<style> <style>_1" in rows["prompt"].iloc[0]) == (learned.family != "sd3")


@pytest.mark.parametrize(
    "learned", ["sd2", "sdxl"], indirect=True
)  # the families with textual inversion
def test_every_text_encoder_learns_rows_of_its_own_and_no_other_row_changes(
    learned: Learned, real: ImageSet
) -> None:
    base, styled = (Generator.open(float32(learned.checkpoint)) for _ in range(2))
    styled.add_style(learned.style)
    before, after = base.text_encoders, styled.text_encoders
    assert len(after) == (2 if learned.family == "sdxl" else 1)
    for name, (tokenizer, encoder) in after.items():
        old, new = (
            before[name][1].get_input_embeddings().weight,
            encoder.get_input_embeddings().weight,
        )
        assert torch.equal(new[: len(old)], old)
        assert len(new) == len(old) + 2
        start = old[before[name][0]("photo", add_special_tokens=False).input_ids].mean(0)
        assert (new[len(old) :] - start).abs().min() > 0
        assert tokenizer("<style>", add_special_tokens=False).input_ids == [len(old)]


@pytest.mark.parametrize(
    "learned", ["sd2", "sdxl"], indirect=True
)  # the families with textual inversion
def test_a_style_of_another_family_is_refused(learned: Learned, generator: Path) -> None:
    with pytest.raises(
        TruelikeError,
        match=r"learned_embeds\.safetensors: .*; run the stage invert again with this",
    ):
        Generator.open(float32(generator)).add_style(learned.style)


def test_a_generator_without_textual_inversion_says_so(real: ImageSet, tmp_path: Path) -> None:
    opened = Generator(tiny_models.make_sd3())
    with pytest.raises(
        TruelikeError, match=r"invert\.enabled: a StableDiffusion3Pipeline cannot learn a style"
    ):
        learn_style(opened, real, INVERT, "float32", tmp_path)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_visual_guidance_is_for_generators_with_one_text_encoder(family: str) -> None:
    features, labels = np.zeros((2, 32), np.float32), np.zeros(2, int)
    with pytest.raises(
        TruelikeError,
        match=r"visual_guidance\.kind is 'image', but the text states of a StableDiff",
    ):
        guidance_vectors(
            Generator(tiny_models.FAMILIES[family]()),
            features,
            labels,
            VisualGuidance(kind="image", centroids=1),
        )

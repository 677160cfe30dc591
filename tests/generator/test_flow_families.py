"""Lumina2, FLUX.1, FLUX.2 klein, Sana and Z-Image from a checkpoint to images: stock diffusers
reads the adapter that we learn, and agrees with its images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline

from tests.support.jobs import OFF, PROMPTS, SETTINGS
from tests.support.learning import ADAPT, assert_same_layers, training_images
from tests.support.models import float32
from tests.support.tiny_flows import FLOWS, save_flow
from truelike.adaptation.lora import learn_adapter, lora_shape
from truelike.generator.adapter import write_adapter
from truelike.generator.generator import Generator
from truelike.generator.latents import unpack
from truelike.generator.samplers import (
    FLOW_SAMPLERS,
    Sampling,
    draw_noise,
    image_rngs,
    make_sampler,
    sample,
)
from truelike.generator.settings import SamplerName
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.render import Renderer
from truelike.synthesis.run import open_renderer, plan_of

SIDE, STEPS, SCALE = 32, 4, 3.0
WITH_IMAGE_TO_IMAGE = ("flux", "flux_dev", "z_image", "qwen")


@dataclass(frozen=True)
class Learned:
    """A checkpoint, and the adapter learned with it."""

    family: str
    checkpoint: Path
    adapter: Path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Four random training images, large enough for every family."""
    folder, draw = tmp_path_factory.mktemp("large") / "train", np.random.default_rng(0)
    pixels = draw.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    own = {"split": "train", "source": "x.png"}
    samples = [Sample(f"image-{n}", n % 2, image, own) for n, image in enumerate(pixels)]
    write_image_set(folder, samples, ["boot", "bag"])
    return ImageSet(folder)


@pytest.fixture(scope="module", params=FLOWS)
def learned(
    request: pytest.FixtureRequest, large: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Learned:
    folder = tmp_path_factory.mktemp(request.param)
    found = Learned(
        request.param, save_flow(folder / "checkpoint", request.param), folder / "adapter"
    )
    found.adapter.mkdir()
    opened = Generator.open(float32(found.checkpoint))
    settings = ADAPT.model_copy(update={"steps": 2, "lr": 0.1, "batch_size": 2})
    learn_adapter(opened, training_images(opened, large), settings, "float32", found.adapter)
    write_adapter(found.adapter, opened.pipeline, lora_shape(opened, settings), "")
    return found


def open_stock(learned: Learned) -> DiffusionPipeline:
    """The checkpoint with the adapter, by diffusers alone."""
    pipeline = DiffusionPipeline.from_pretrained(learned.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(learned.adapter)
    return pipeline


def job_of(learned: Learned, real: ImageSet, **settings: Any) -> SynthesisJob:
    update = {"sampler": "euler", "steps": STEPS, "guidance_scale": SCALE, "strength": 1.0}
    return SynthesisJob(
        stage="synthesize",
        generator=float32(learned.checkpoint),
        prompts=PROMPTS,
        settings=SETTINGS.model_copy(update=update | settings),
        visual_guidance=OFF,
        real=real.folder,
        adapter=learned.adapter,
    )


def guidance(stock: DiffusionPipeline, family: str) -> dict[str, Any]:
    """How the stock pipeline of a family is told to guide as we do."""
    negative = [PROMPTS.negative] * 2
    if family in ("flux", "qwen"):
        return {"true_cfg_scale": SCALE, "negative_prompt": negative}
    if family == "flux_dev":
        return {"guidance_scale": SCALE}  # which its transformer is told
    if family == "flux2":
        states = stock.encode_prompt(negative, device="cpu")[0].detach()
        return {"guidance_scale": SCALE, "negative_prompt_embeds": states}
    if family == "z_image":
        return {"guidance_scale": SCALE - 1, "negative_prompt": negative}  # c + scale (c - u)
    plain = {"use_resolution_binning": False} if family == "sana" else {}
    return {"guidance_scale": SCALE, "negative_prompt": negative} | plain


def from_image(
    stock: DiffusionPipeline, learned: Learned, renderer: Renderer, seeds: Sequence[int]
) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """The stock pipeline that begins with noised real images, three of four steps before their end,
    and its arguments.
    """
    prior = renderer.generator.to_latents(torch.from_numpy(renderer.real.load([0, 1])))
    if learned.family in WITH_IMAGE_TO_IMAGE:
        other = AutoPipelineForImage2Image.from_pipe(stock)
        return other, {"image": prior, "strength": 0.75, "height": SIDE, "width": SIDE}
    scheduler = stock.scheduler  # with the sigmas of its four steps
    even = torch.linspace(1, 1 / STEPS, STEPS)
    if learned.family == "sana":
        even = torch.linspace(scheduler.sigma_max, scheduler.sigma_min, STEPS)
    sigma = scheduler.sigmas[1]
    noise = draw_noise(image_rngs(seeds), prior.shape[1:])
    return stock, {
        "latents": (1 - sigma) * prior + sigma * noise,
        "sigmas": even[1:].tolist(),
        "height": SIDE,
        "width": SIDE,
    }


def test_stock_diffusers_makes_the_same_images_of_noise_and_of_images(
    learned: Learned, large: ImageSet
) -> None:
    job = job_of(learned, large)
    renderer, rows = open_renderer(job, large), plan_of(job, large, 0).iloc[:2]
    stock = open_stock(learned)
    stock.scheduler = make_sampler("euler", stock.scheduler)
    prompts, seeds = rows["prompt"].tolist(), rows["seed"].tolist()

    def made(pipeline: DiffusionPipeline, **how: Any) -> np.ndarray:
        images = pipeline(
            prompt=list(prompts),
            num_inference_steps=STEPS,
            generator=image_rngs(seeds),
            output_type="np",
            **guidance(stock, learned.family),
            **how,
        ).images
        return np.round(images * 255)

    ours = renderer.render(rows)
    assert ours.shape == (2, SIDE, SIDE, 3)
    assert np.abs(ours - made(stock, height=SIDE, width=SIDE)).max() <= 1
    of_images = renderer.render(rows.assign(strength=0.75))
    other, how = from_image(stock, learned, renderer, seeds)
    assert np.abs(of_images - made(other, **how)).max() <= 1
    assert np.abs(of_images - ours.astype(float)).max() > 1
    plain = open_renderer(job_of(learned, large, lora_scale=0.0), large)
    assert np.abs(plain.render(rows) - ours.astype(float)).max() > 1


@pytest.mark.parametrize(
    ("family", "sampler"),
    [("flux_dev", "unipc"), ("flux_dev", "dpm++2m"), ("sana", "dpm++2m"), ("sana", "unipc")],
)
def test_other_samplers_equal_the_stock_pipelines(family: str, sampler: SamplerName) -> None:
    stock, prompts, seeds = FLOWS[family](), ["a boot", "a bag"], [3, 4]
    opened = Generator(stock)
    checkpoint = stock.scheduler
    shape, rngs = opened.latent_shape(SIDE, SIDE), image_rngs(seeds)
    with torch.no_grad():
        states = [opened.encode([prompt]) for prompt in prompts]
        negative = opened.encode_negative([PROMPTS.negative])
    conditioning = {name: torch.cat([one[name] for one in states]) for name in negative}
    how = Sampling(steps=STEPS, guidance_scale=SCALE)
    scheduler, noise = make_sampler(sampler, checkpoint), draw_noise(rngs, shape)
    made = sample(opened, scheduler, conditioning, negative, noise, rngs, how)
    if (family, sampler) != ("sana", "dpm++2m"):  # which is the checkpoint's own
        stock.scheduler = make_sampler(sampler, checkpoint)
    stock.set_progress_bar_config(disable=True)
    latents = stock(
        prompt=prompts,
        num_inference_steps=STEPS,
        generator=image_rngs(seeds),
        height=SIDE,
        width=SIDE,
        output_type="latent",
        **guidance(stock, family),
    ).images
    expected = unpack(latents, *shape[1:]) if family == "flux_dev" else latents
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_learning_and_sampling_in_bfloat16(
    learned: Learned, large: ImageSet, tmp_path: Path
) -> None:
    opened = Generator.open(replace(float32(learned.checkpoint), dtype="bfloat16"))
    update = {"steps": 1, "batch_size": 2, "micro_batch_size": 1, "gradient_checkpointing": "on"}
    settings = ADAPT.model_copy(update=update)
    learn_adapter(opened, training_images(opened, large), settings, "bfloat16", tmp_path)
    assert (tmp_path / "log.csv").is_file()
    rngs = image_rngs([3])
    noise = draw_noise(rngs, opened.latent_shape(SIDE, SIDE)).bfloat16()
    with torch.no_grad():
        states, negative = opened.encode(["a boot"]), opened.encode_negative([""])
    how = Sampling(steps=2, guidance_scale=SCALE)
    for name in FLOW_SAMPLERS:
        scheduler = make_sampler(name, opened.scheduler)
        made = sample(opened, scheduler, states, negative, noise, rngs, how)
        assert made.dtype == torch.bfloat16
        assert made.isfinite().all()


def test_stock_diffusers_loads_every_layer_of_the_adapter(learned: Learned) -> None:
    assert_same_layers(learned.adapter, open_stock(learned).transformer)


@pytest.mark.parametrize("family", FLOWS)
def test_timesteps_of_the_scheduler_follow_the_latents_to_their_device(family: str) -> None:
    opened, told = Generator(FLOWS[family]()), []
    opened.family = replace(opened.family, denoise=lambda *inputs: told.append(inputs[2].device))
    opened.denoise(torch.zeros(2, 4, 8, 8, device="meta"), torch.tensor(500.0), {})
    assert told == [torch.device("meta")]


@pytest.mark.parametrize("family", ["sana", "qwen"])
def test_a_gpu_decodes_images_of_up_to_1024_pixels_whole(family: str) -> None:
    """The two VAEs that begin with smaller tiles."""
    opened = Generator(FLOWS[family]())
    vae = opened.pipeline.vae
    assert vae.tile_sample_min_height < 1024
    opened.on_gpu = True
    opened.tune()
    assert vae.use_tiling
    assert vae.tile_sample_min_height == vae.tile_sample_min_width == 1024

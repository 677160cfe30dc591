"""One replica of the demo against stock diffusers, after the demo:
``python -m benchmarks.synthesis``.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file

from benchmarks import Cost, compare, cost, table, write
from truelike.config import load_params
from truelike.generator.adapter import LORA_FILE, read_adapter
from truelike.generator.samplers import image_rngs, make_sampler
from truelike.generator.style import EMBEDS_FILE, read_style
from truelike.imageset.reading import ImageSet
from truelike.runtime.devices import torch_dtype
from truelike.runtime.stage import keep_freed_memory
from truelike.synthesis.jobs import SynthesisJob, replica_job
from truelike.synthesis.run import plan_of, synthesize
from truelike.synthesis.settings import Synthesize

FAST = Path("recipes/fast.yaml")
STOCK, OURS, QUICK = "stock pipeline", "truelike", "truelike, `recipes/fast.yaml`"


def stock(job: SynthesisJob, replica: int, out: Path) -> None:
    """The usual way: a call of the stock pipeline for each class, its text encoded each time, PNG
    saved inline.
    """
    assert job.style
    assert job.adapter
    real = ImageSet(job.real)
    plan = plan_of(job, real, replica)
    dtype = torch_dtype(job.generator.dtype)
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
        job.generator.path, dtype=dtype, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_sampler(job.settings.sampler, pipeline.scheduler)
    if read_style(job.style).enabled:
        for token, vector in load_file(job.style / EMBEDS_FILE).items():
            pipeline.load_textual_inversion({token: vector})
    if read_adapter(job.adapter).enabled:
        pipeline.load_lora_weights(job.adapter, weight_name=LORA_FILE)
    for label, rows in plan.groupby("label"):
        # The stock pipeline draws from the VAE's posterior; ours takes its mode, and so must a fair
        # comparison.
        with patch.object(
            DiagonalGaussianDistribution,
            "sample",
            lambda posterior, generator=None: posterior.mode(),
        ):
            images = pipeline(
                prompt=rows["prompt"].tolist(),
                negative_prompt=rows["negative_prompt"].tolist(),
                image=[
                    Image.fromarray(real.pixels(real.keys.index(key))) for key in rows["source_key"]
                ],
                strength=job.settings.strength,
                num_inference_steps=job.settings.steps,
                guidance_scale=job.settings.guidance_scale,
                generator=image_rngs(rows["seed"].tolist()),
            ).images
        folder = out / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        for key, image in zip(rows["key"], images, strict=True):
            image.save(folder / f"{key}.png")


def ours(job: SynthesisJob, replica: int, out: Path) -> None:
    """One replica with nothing finished before, in a process that is set up as a stage's."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ, DVC_ROOT=scratch):
        synthesize(job, replica, out)


def largest_difference(first: Path, second: Path) -> int:
    """Between the pixels of an image set and those of a folder of PNG files with the same keys, 0
    to 255.
    """
    images = ImageSet(first)
    files = {file.stem: file for file in second.rglob("*.png")}
    assert sorted(files) == sorted(images.keys)
    loose = np.stack([np.asarray(Image.open(files[key])) for key in images.keys])
    return int(np.abs(images.load().astype(int) - loose).max())


def fast(settings: Synthesize, recipe: dict[str, dict[str, Any]]) -> Synthesize:
    """The settings that a recipe changes."""
    return Synthesize.model_validate(settings.model_dump() | recipe["synthesize"])


def second_cost(run: Callable[[], object]) -> Cost:
    """What `run` costs in a process of its own when it runs there again, and all it needs is
    imported.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(run).result()
        return pool.submit(cost, run).result()


def main() -> None:
    params = load_params()
    job = replica_job(params)
    quick = replace(job, settings=fast(job.settings, YAML(typ="safe").load(FAST)))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        sides = {
            STOCK: partial(stock, job, 0, out / "stock"),
            OURS: partial(ours, job, 0, out / "ours"),
            QUICK: partial(ours, quick, 0, out / "fast"),
        }
        lines = table(compare(sides, 3, second_cost), STOCK)
        difference = largest_difference(out / "ours", out / "stock")
    write(
        "synthesis",
        [
            *lines,
            "",
            f"Largest difference between the pixels of the first two: {difference} of 255.",
        ],
    )


if __name__ == "__main__":
    main()

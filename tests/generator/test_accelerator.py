"""A LoRA for few steps beside the learned adapter: stock diffusers with both makes the same
images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
from safetensors.torch import load_file, save_file

from tests.support import tiny_models
from tests.support.jobs import OFF, PROMPTS, SETTINGS
from tests.support.learning import ADAPT
from tests.support.models import float32
from truelike.adaptation.lora import add_lora, lora_shape
from truelike.generator.accelerator import add_accelerator
from truelike.generator.adapter import LORA_FILE, write_adapter
from truelike.generator.families import denoiser_of
from truelike.generator.generator import Generator, identify
from truelike.generator.samplers import image_rngs, make_sampler
from truelike.imageset.reading import ImageSet
from truelike.runtime import hub
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import resolve_file
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.run import open_renderer, plan_of, replica_key

SCALE = 0.7


def write_random_lora(checkpoint: Path, folder: Path, seed: int) -> Path:
    """An adapter of random weights, in the form in which stock diffusers writes it."""
    opened = Generator.open(float32(checkpoint))
    parameters = add_lora(opened, ADAPT)
    rng = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        value.data.normal_(0, 0.2, generator=rng)
    folder.mkdir()
    write_adapter(folder, opened.pipeline, lora_shape(opened, ADAPT), "")
    return folder


@pytest.fixture(scope="module", params=["sd1"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator, and beside it an adapter and an accelerator."""
    folder = tmp_path_factory.mktemp(request.param)
    made = tiny_models.save_generator(folder / "generator", request.param)
    write_random_lora(made, folder / "adapter", 1)
    write_random_lora(made, folder / "fast", 2)
    return made


def job_of(checkpoint: Path, real: ImageSet, accelerator: Path | None, **settings: Any):
    name = None if accelerator is None else str(accelerator)
    return SynthesisJob(
        stage="synthesize",
        generator=replace(float32(checkpoint), accelerator=name),
        prompts=PROMPTS,
        settings=SETTINGS.model_copy(update={"lora_scale": SCALE} | settings),
        visual_guidance=OFF,
        real=real.folder,
        adapter=checkpoint.parent / "adapter",
    )


def pointer_to(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, scale: float) -> Path:
    """A pointer whose repository holds the file."""
    monkeypatch.setattr(hub, "hf_hub_download", lambda name, own, revision: str(file))
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    pointer = folder / "fast.yaml"
    pointer.write_text(f"hub: a/b\nfile: {file.name}\nrevision: {'ab' * 20}\nscale: {scale}\n")
    return pointer


@pytest.mark.parametrize(
    ("checkpoint", "sampler"),
    [("sd1", "lcm"), ("sdxl", "euler-trailing"), ("sd3", "euler")],
    indirect=["checkpoint"],
)
def test_stock_diffusers_with_both_makes_the_same_images(
    checkpoint: Path,
    real: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
) -> None:
    fast = checkpoint.parent / "fast"
    accelerator = pointer_to(fast / LORA_FILE, tmp_path, monkeypatch, 0.5)
    how = {"sampler": sampler, "steps": 4, "guidance_scale": 1.0, "strength": 0.75}
    job = job_of(checkpoint, real, accelerator, **how)
    renderer, rows = open_renderer(job, real), plan_of(job, real, 0).iloc[:2]
    stock = DiffusionPipeline.from_pretrained(checkpoint)
    stock.load_lora_weights(job.adapter, adapter_name="ours")
    stock.load_lora_weights(fast, adapter_name="fast")
    stock.set_adapters(["ours", "fast"], [SCALE, 0.5])
    stock.scheduler = make_sampler(sampler, stock.scheduler)
    stock = AutoPipelineForImage2Image.from_pipe(stock)
    stock.set_progress_bar_config(disable=True)
    images = stock(
        prompt=rows["prompt"].tolist(),
        image=renderer.generator.to_latents(torch.from_numpy(real.load([0, 1]))),
        strength=0.75,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=image_rngs(rows["seed"].tolist()),
        output_type="np",
    ).images
    made = renderer.render(rows)
    assert np.abs(made - np.round(images * 255)).max() <= 1
    without = open_renderer(job_of(checkpoint, real, None, **how), real).render(rows)
    assert np.abs(made - without.astype(float)).max() > 1


def fused(checkpoint: Path, accelerator: Path) -> dict[str, torch.Tensor]:
    opened = Generator.open(float32(checkpoint))
    add_accelerator(opened, str(accelerator))
    return denoiser_of(opened.pipeline).state_dict()


def test_files_in_the_names_of_other_trainers_are_read(checkpoint: Path, tmp_path: Path) -> None:
    """As those of LCM-LoRA are: an alpha for each layer, 6 at rank 2."""
    own = checkpoint.parent / "fast" / LORA_FILE
    foreign: dict[str, torch.Tensor] = {}
    for name, value in load_file(own).items():
        layer, _, end = name.removeprefix("unet.").partition(".lora.")
        module = f"lora_unet_{layer.replace('.', '_')}"
        foreign[f"{module}.lora_{end}"] = value
        foreign[f"{module}.alpha"] = torch.tensor(float(ADAPT.alpha))
    save_file(foreign, tmp_path / "foreign.safetensors")
    expected = fused(checkpoint, own)
    for name, value in fused(checkpoint, tmp_path / "foreign.safetensors").items():
        torch.testing.assert_close(value, expected[name])


def test_no_accelerator_changes_nothing(checkpoint: Path, real: ImageSet, tmp_path: Path) -> None:
    none = tmp_path / "none.yaml"
    none.write_text("# none\n")
    plain = Generator.open(float32(checkpoint)).denoiser.state_dict()
    same = fused(checkpoint, none)
    assert all(torch.equal(same[name], value) for name, value in plain.items())
    model = float32(checkpoint)
    assert identify(replace(model, accelerator=str(none))) == identify(model)


def test_the_accelerator_is_part_of_what_made_an_image(
    checkpoint: Path, real: ImageSet, tmp_path: Path
) -> None:
    file = tmp_path / "fast.safetensors"
    rows, keys = [], []
    for number in (1.0, 2.0):
        save_file({"x": torch.tensor([number])}, file)
        job = job_of(checkpoint, real, file)
        rows.append(plan_of(job, real, 0)["generator"].iloc[0])
        keys.append(replica_key(job, 0))
    assert rows[0].startswith(f"{identify(float32(checkpoint))} + {file}@")
    assert rows[0] != rows[1]
    assert keys[0] != keys[1]


def test_what_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    layers = load_file(checkpoint.parent / "fast" / LORA_FILE)
    wide = {
        name: value.repeat(1, 2) if "lora.down" in name else value for name, value in layers.items()
    }
    elsewhere = {name.replace("mid_block", "end_block"): value for name, value in layers.items()}
    for kind, content in (("wide", wide), ("elsewhere", elsewhere)):
        save_file(content, tmp_path / f"{kind}.safetensors")
        with pytest.raises(
            TruelikeError, match=r"models\.accelerator: .* does not fit the unet of a StableDiff"
        ):
            fused(checkpoint, tmp_path / f"{kind}.safetensors")


def test_what_is_no_file_of_weights_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(TruelikeError, match=r"fast: no such file of weights; give a \.safetensors"):
        resolve_file(tmp_path / "fast")
    pointer = tmp_path / "fast.yaml"
    pointer.write_text("hub: a/b\nrevision: null\n")
    with pytest.raises(TruelikeError, match=r"must hold hub, file, revision .* file: Field req"):
        resolve_file(pointer)

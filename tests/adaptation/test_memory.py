"""What saves memory changes no result: parts of a batch, activations made again, frozen weights in
fewer bits, and the parts of the pipeline that are not at work off the device.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.compiling import trace_only
from tests.support.learning import ADAPT, INVERT, learn_and_write_adapter, training_images
from tests.support.models import float32
from truelike.adaptation.inversion import invert
from truelike.adaptation.lora import AdaptInputs, adapt, learn_adapter
from truelike.generator.adapter import LORA_FILE
from truelike.generator.generator import Generator
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.imageset.reading import ImageSet
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.run import open_renderer, plan_of

HEAVY = ADAPT.model_copy(update={"dm": ADAPT.dm.model_copy(update={"weight": 1.0})})


def lora_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / LORA_FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch_size": 1},
        {"micro_batch_size": 3},
        {"gradient_checkpointing": "on"},
        {"micro_batch_size": 2, "gradient_checkpointing": "on"},
    ],
)
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_losses_and_gradients_are_those_of_the_whole_batch(
    generator: Path, real: ImageSet, tmp_path: Path, change: dict[str, Any], kernel: str
) -> None:
    whole = HEAVY.model_copy(update={"dm": HEAVY.dm.model_copy(update={"kernel": kernel})})
    learn_and_write_adapter(generator, real, tmp_path / "whole", whole)
    learn_and_write_adapter(generator, real, tmp_path / "parts", whole.model_copy(update=change))
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "parts")]
    np.testing.assert_allclose(*logs, rtol=1e-3)
    learned = lora_of(tmp_path / "parts")
    for name, value in lora_of(tmp_path / "whole").items():
        torch.testing.assert_close(learned[name], value, atol=1e-4, rtol=1e-2)


def test_no_more_than_a_part_of_a_batch_is_in_the_denoiser_at_once(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    opened = Generator.open(float32(generator))
    images, sizes = training_images(opened, real), []
    opened.denoiser.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    settings = ADAPT.model_copy(update={"micro_batch_size": 3, "steps": 1})
    learn_adapter(opened, images, settings, "float32", tmp_path)
    assert sorted(sizes) == [1, 1, 3, 3]  # each part once more for its gradient


def test_frozen_weights_have_the_type_of_the_model_and_what_learns_is_float32(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    rough = replace(float32(generator), dtype="bfloat16")
    opened = Generator.open(rough)
    learn_adapter(opened, training_images(opened, real), ADAPT, "bfloat16", tmp_path)
    types = {"lora" in name: value.dtype for name, value in opened.denoiser.named_parameters()}
    assert types == {False: torch.bfloat16, True: torch.float32}
    learn_and_write_adapter(generator, real, tmp_path / "exact", ADAPT)
    assert pd.read_csv(tmp_path / "log.csv")["diff"].to_numpy() == pytest.approx(
        pd.read_csv(tmp_path / "exact/log.csv")["diff"].to_numpy(), rel=0.1
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_style_is_learned_in_float32_whatever_the_model_s_type(
    generator: Path, real: ImageSet, project: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr("truelike.generator.generator.check_dtype", lambda name: None)
    invert(INVERT, replace(float32(generator), dtype=dtype), real.folder, project / "style")
    rows = load_file(project / "style/learned_embeds.safetensors")
    assert {value.dtype for value in rows.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in rows.values())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which parts of a generator were on the device whenever the denoiser ran."""
    now: set[str] = set()
    seen: list[set[str]] = []
    place, denoise = Generator.place, Generator.denoise

    def record_place(self: Generator, parts: Any) -> None:
        now.clear()
        now.update(parts)
        place(self, parts)

    def record_denoise(self: Generator, *inputs: Any) -> torch.Tensor:
        seen.append(set(now))
        return denoise(self, *inputs)

    monkeypatch.setattr(Generator, "place", record_place)
    monkeypatch.setattr(Generator, "denoise", record_denoise)
    return seen


def inputs_of(job: SynthesisJob) -> AdaptInputs:
    assert job.captions
    assert job.features
    assert job.style
    return AdaptInputs(job.real, job.captions, job.features, job.style)


def test_only_what_is_at_work_is_on_the_device(
    job: SynthesisJob, real: ImageSet, tmp_path: Path, placed: list[set[str]]
) -> None:
    guidance = VisualGuidance(kind="image", centroids=1)
    settings = ADAPT.model_copy(update={"steps": 2})
    adapt(settings, job.prompts, guidance, job.generator, inputs_of(job), tmp_path / "adapter")
    assert placed == [{"unet"}] * 2
    placed.clear()
    open_renderer(job, real).render(plan_of(job, real, 0).iloc[:2])
    assert set(map(frozenset, placed)) == {frozenset({"unet", "vae"})}
    placed.clear()
    style = INVERT.model_copy(update={"steps": 2})
    invert(style, job.generator, real.folder, tmp_path / "learned")
    assert placed == [{"unet", "text_encoder"}] * 2


def test_previews_are_made_and_published_and_change_nothing_else(
    job: SynthesisJob, tmp_path: Path
) -> None:
    plain = Prompts.model_validate(job.prompts.model_dump())
    off = VisualGuidance(kind="off", centroids=1)
    for name, every in (("with", 3), ("without", None)):
        settings = ADAPT.model_copy(update={"preview_every": every})
        adapt(settings, plain, off, job.generator, inputs_of(job), tmp_path / name)
    assert lora_of(tmp_path / "with").keys() == lora_of(tmp_path / "without").keys()
    assert (tmp_path / "with" / LORA_FILE).read_bytes() == (
        tmp_path / "without" / LORA_FILE
    ).read_bytes()
    files = sorted((tmp_path / "with/previews").iterdir())
    assert [file.name for file in files] == ["step-00003.png", "step-00006.png"]
    first, second = (np.asarray(Image.open(file)) for file in files)
    assert first.shape == (16, 32, 3)  # an image of each of two classes
    assert (first != second).any()
    assert not (tmp_path / "without/previews").exists()


def test_the_best_adapter_on_held_out_images_is_kept(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    """At a learning rate that ruins the adapter, the first checkpoint is the best."""
    ruin = ADAPT.model_copy(update={"lr": 1.0, "choose": "best", "checkpoint_every": 1})
    learn_and_write_adapter(generator, real, tmp_path / "best", ruin)
    log = pd.read_csv(tmp_path / "best/log.csv")
    place = int(log["heldout"].idxmin())
    assert place < len(log) - 1
    short = ruin.model_copy(update={"steps": place + 1})
    learn_and_write_adapter(generator, real, tmp_path / "short", short)
    assert (tmp_path / "best" / LORA_FILE).read_bytes() == (
        tmp_path / "short" / LORA_FILE
    ).read_bytes()


def test_held_out_images_are_never_learned_from(
    generator: Path, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from truelike.adaptation.lora import AdapterObjective, TrainingImages

    learned: set[int] = set()
    judged: set[int] = set()
    inside: list[bool] = []
    heldout, conditioning = AdapterObjective.heldout_loss, TrainingImages.conditioning

    def record_heldout(self: AdapterObjective, positions: torch.Tensor) -> float:
        inside.append(True)
        loss = heldout(self, positions)
        inside.pop()
        return loss

    def record(self: TrainingImages, positions: torch.Tensor, device: torch.device) -> Any:
        (judged if inside else learned).update(positions.tolist())
        return conditioning(self, positions, device)

    monkeypatch.setattr(AdapterObjective, "heldout_loss", record_heldout)
    monkeypatch.setattr(TrainingImages, "conditioning", record)
    settings = ADAPT.model_copy(update={"choose": "best", "steps": 12})
    learn_and_write_adapter(generator, real, tmp_path / "adapter", settings)
    assert len(judged) == 2  # one of each class
    assert judged.isdisjoint(learned)
    assert learned | judged == set(range(len(real)))


def test_a_compiled_denoiser_learns_and_makes_the_same(
    job: SynthesisJob, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = trace_only(monkeypatch)
    off = VisualGuidance(kind="off", centroids=1)
    settings = ADAPT.model_copy(update={"steps": 2})
    made = []
    for name, compiles in (("plain", False), ("compiled", True)):
        model = replace(job.generator, compile=compiles)
        adapt(settings, job.prompts, off, model, inputs_of(job), tmp_path / name)
        own = replace(job, generator=model, adapter=tmp_path / name, visual_guidance=off)
        made.append(open_renderer(own, real).render(plan_of(own, real, 0).iloc[:2]).astype(int))
    assert len(given) == 2
    assert np.abs(made[0] - made[1]).max() <= 1
    for name, value in lora_of(tmp_path / "plain").items():
        torch.testing.assert_close(lora_of(tmp_path / "compiled")[name], value)

"""An adapter for each class (``adapt.scope: class``): what it learns from, and that its class's
images use it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.support.jobs import contents
from tests.support.learning import ADAPT, learn_and_write_adapter, unet_output
from truelike.adaptation import loop
from truelike.generator.adapter import LORA_FILE, Adapter, read_adapter
from truelike.generator.generator import Generator
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.run import open_renderer, plan_of, synthesize

BY_CLASS = ADAPT.model_copy(update={"scope": "class"})


@pytest.fixture
def trained(generator: Path, real: ImageSet, tmp_path: Path) -> Generator:
    return learn_and_write_adapter(generator, real, tmp_path / "adapter", BY_CLASS)


def test_stock_diffusers_reloads_every_class_to_the_same_output(
    generator: Path, trained: Generator, tmp_path: Path
) -> None:
    outputs = []
    for label in (0, 1):
        stock = StableDiffusionPipeline.from_pretrained(generator)
        stock.load_lora_weights(tmp_path / "adapter" / str(label))
        trained.use_class(label, 1.0)
        assert torch.equal(unet_output(stock), unet_output(trained.pipeline))
        outputs.append(unet_output(stock))
    assert not torch.allclose(*outputs)


def test_the_steps_are_divided_over_the_classes(trained: Generator, tmp_path: Path) -> None:
    for label in (0, 1):
        assert len(pd.read_csv(tmp_path / f"adapter/{label}/log.csv")) == BY_CLASS.steps // 2


def test_a_class_learns_from_its_own_images_alone(
    generator: Path, real: ImageSet, trained: Generator, tmp_path: Path
) -> None:
    pixels = real.load(range(len(real)))
    pixels[np.array(real.labels) == 1] ^= 255
    samples = [
        Sample(key, int(label), image, {"split": "train"})
        for key, label, image in zip(real.keys, real.labels, pixels, strict=True)
    ]
    write_image_set(tmp_path / "changed", samples, real.class_names)
    learn_and_write_adapter(generator, ImageSet(tmp_path / "changed"), tmp_path / "other", BY_CLASS)
    same = [
        (tmp_path / "adapter" / label / LORA_FILE).read_bytes()
        == (tmp_path / "other" / label / LORA_FILE).read_bytes()
        for label in ("0", "1")
    ]
    assert same == [True, False]
    assert (
        read_adapter(tmp_path / "adapter").fingerprint
        != read_adapter(tmp_path / "other").fingerprint
    )


def test_an_interrupted_run_goes_on_in_the_class_where_it_was(
    generator: Path,
    real: ImageSet,
    trained: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = BY_CLASS.model_copy(update={"checkpoint_every": 1})
    steps = []
    step_rng = loop.step_rng

    def interrupt(seed: int, step: int) -> torch.Generator:
        steps.append(step)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step_rng(seed, step)

    monkeypatch.setattr(loop, "step_rng", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn_and_write_adapter(generator, real, tmp_path / "resumed", settings)
    learn_and_write_adapter(generator, real, tmp_path / "resumed", settings)
    assert steps == [0, 1, 2, 0, 1, 1, 2]
    for name in ("adapter.json", f"0/{LORA_FILE}", f"1/{LORA_FILE}", "1/log.csv"):
        assert (tmp_path / "adapter" / name).read_bytes() == (
            tmp_path / "resumed" / name
        ).read_bytes()


def test_images_are_made_with_the_adapter_of_their_class(
    job: SynthesisJob,
    real: ImageSet,
    trained: Generator,
    tmp_path: Path,
) -> None:
    by_class = replace(job, adapter=tmp_path / "adapter")
    plan = plan_of(by_class, real, 0)
    assert plan["label"].is_monotonic_increasing
    assert sorted(plan["key"]) == sorted(plan_of(job, real, 0)["key"])
    images = open_renderer(by_class, real).render(plan)
    for label in (0, 1):
        Adapter(enabled=True, fingerprint="x").save(
            tmp_path / "adapter" / str(label) / "adapter.json"
        )
        alone = open_renderer(replace(job, adapter=tmp_path / "adapter" / str(label)), real)
        mine = plan["label"] == label
        expected = alone.render(plan[mine])
        assert (
            np.abs(images[mine].astype(int) - expected).max() <= 1
        )  # fused weights differ by rounding
        assert np.abs(images[~mine].astype(int) - alone.render(plan[~mine])).max() > 1


def test_a_replica_with_class_adapters_is_whole_and_repeatable(
    job: SynthesisJob,
    real: ImageSet,
    trained: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_class = replace(job, adapter=tmp_path / "adapter")
    synthesize(by_class, 0, tmp_path / "first")
    assert sorted(ImageSet(tmp_path / "first").index["source_key"]) == sorted(real.keys)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    synthesize(by_class, 0, tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")

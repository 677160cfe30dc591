"""docs/stock_tools.md: its code runs, in order, on what truelike learned and made."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny_models
from tests.support.jobs import PROMPTS, make_job
from tests.support.learning import ADAPT, INVERT, learn_and_write_style, training_images
from tests.support.models import float32
from truelike.adaptation.lora import learn_adapter, lora_shape
from truelike.generator.adapter import write_adapter
from truelike.generator.generator import Generator
from truelike.generator.samplers import SAMPLERS
from truelike.imageset.reading import ImageSet
from truelike.sharing.export import export
from truelike.synthesis.run import synthesize

PAGE = Path(__file__).resolve().parents[1] / "docs/stock_tools.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| `([a-z0-9+-]+)` \| `([A-Za-z]+)` \| (?:`(.*)` )?\|$", re.MULTILINE)


@pytest.fixture(scope="module")
def made(real: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's code leaves, in a project with a style, an adapter and a replica."""
    project = tmp_path_factory.mktemp("project")
    short = {"steps": 2, "tokens_per_style": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.delenv("DVC_ROOT", raising=False)
        generator = tiny_models.save_generator(project / "models/generator")
        shutil.copytree(real.folder, "outputs/real/train")
        job = make_job(generator, ImageSet(Path("outputs/real/train")), Path("outputs"))
        learn_and_write_style(
            generator, real, Path("outputs/style"), INVERT.model_copy(update=short)
        )
        opened = Generator.open(float32(generator))
        style = opened.add_style(Path("outputs/style"))
        settings = ADAPT.model_copy(update={"steps": 2, "lr": 0.1})
        images = training_images(opened, real)
        learn_adapter(opened, images, settings, "float32", Path("outputs/adapter"))
        shape = lora_shape(opened, settings)
        write_adapter(Path("outputs/adapter"), opened.pipeline, shape, style.fingerprint)
        off = job.visual_guidance.model_copy(update={"kind": "off"})
        own = replace(job, prompts=PROMPTS, visual_guidance=off, features=None)
        synthesize(own, 0, Path("outputs/synthetic/0"))
        export(Path("outputs/synthetic"), Path("exported"), True)
        names: dict[str, Any] = {}
        for block in CODE.findall(PAGE.read_text(encoding="utf-8")):
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_stock_pipeline_makes_a_row_s_image_again(made: dict[str, Any]) -> None:
    again, stored = (np.asarray(made[name], dtype=int) for name in ("again", "stored"))
    assert made["row"]["strength"] < 1
    assert "<style>" in made["row"]["prompt"]
    assert again.shape == (16, 16, 3)
    assert np.abs(again - stored).max() <= 1


def test_torchvision_opens_the_exported_images(made: dict[str, Any]) -> None:
    images = made["images"]
    assert images.classes == ["bag", "boot"]
    assert len(images) == 10
    assert made["picture"].shape == (3, 16, 16)
    assert 0 <= float(made["picture"].min()) < float(made["picture"].max()) <= 1


def test_the_page_names_the_scheduler_of_every_sampler() -> None:
    rows = {name: (kind, text) for name, kind, text in ROW.findall(PAGE.read_text("utf-8"))}
    expected = {
        name: (kind.__name__, ", ".join(f"{key}={value!r}" for key, value in options.items()))
        for name, (kind, options) in SAMPLERS.items()
    }
    assert rows == {name: (kind, text.replace("'", '"')) for name, (kind, text) in expected.items()}

"""The memory that each stage needs on an accelerator, from models of real size without weights:
``python -m benchmarks.cards [NAME ...]``.

The stages' own code runs on fake tensors, which have a shape and no content, on any machine, and
the bytes of those that live are counted. What an accelerator does differently from the CPU is
imitated: fused attention, normalisation in float32 under autocast, and that parts leave the device.
Not counted are the context of CUDA, cuDNN's workspaces and the gaps between blocks of memory: for
them is RESERVE.
"""

import argparse
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks import PAGE, write
from benchmarks.architectures import Architecture, architectures, build
from benchmarks.live import LiveBytes, as_on_cuda, counted, fake_mode
from truelike.adaptation.inversion import learn_style
from truelike.adaptation.lora import AdaptInputs, learn_adapter, read_images
from truelike.config import Params, parse_params
from truelike.generator.families import FAMILIES
from truelike.generator.generator import Generator
from truelike.generator.states import BATCH
from truelike.generator.style import Style
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_features, write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.recipes import use_recipes
from truelike.runtime.devices import torch_dtype, training_dtype
from truelike.runtime.yaml import read_yaml
from truelike.selection.judge import Judge
from truelike.synthesis.jobs import SynthesisJob, naive_job, replica_job
from truelike.synthesis.plan import batches
from truelike.synthesis.render import Renderer
from truelike.synthesis.run import plan_of
from truelike.training.images import LabelledImages
from truelike.training.loop import fit, predict
from truelike.training.networks import open_classifier
from truelike.training.settings import Phase

CARDS = (8, 12, 16, 24, 80)  # GiB
RESERVE = 1.0  # GiB that a card needs besides tensors, assumed
CLASSES, IMAGES = ("boot", "shoe"), BATCH  # as many prompts as are encoded at once
NETWORK_CLASSES = 1000


def settings_of(recipes: Sequence[str]) -> Any:
    """The shipped settings with these recipes."""
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        shutil.copy("recipes/default.yaml", params)
        use_recipes(recipes, params)
        return read_yaml(params)


class Material(NamedTuple):
    """Black real images, with captions and features, and a folder to write to."""

    real: ImageSet
    inputs: AdaptInputs
    folder: Path


def make_material(folder: Path, side: int) -> Material:
    """Black images of `side` pixels with all that adaptation takes of them."""
    pixels = np.zeros((side, side, 3), np.uint8)
    images = [Sample(f"{number:02d}", number % 2, pixels) for number in range(IMAGES)]
    write_image_set(folder / "real", images, CLASSES)
    real = ImageSet(folder / "real")
    texts = [f"a photo, number {key}" for key in real.keys]
    captions = pd.DataFrame({"key": real.keys, "caption": texts, "truncated": False})
    write_table(folder / "captions.parquet", captions)
    write_features(folder / "features.parquet", real.keys, np.zeros((IMAGES, 768), np.float32))
    style = folder / "style"
    files = (folder / "captions.parquet", folder / "features.parquet", style)
    return Material(real, AdaptInputs(folder / "real", *files), folder)


@dataclass(frozen=True)
class Run:
    """What a stage's prediction is made from; `judged` is how many images a classifier predicts."""

    architecture: Architecture
    params: Params
    material: Material
    on_gpu: bool = True
    judged: int = 256

    def open(self, live: LiveBytes, dtype: str, parts: Collection[str]) -> Generator:
        """The generator as `Generator.open` leaves it; its weights count where they are placed, or
        all of them on the CPU.
        """
        with fake_mode:
            pipeline = build(self.architecture)
        generator = CountedGenerator(pipeline, live, self.on_gpu)
        for module in generator.modules.values():
            module.to(torch_dtype(dtype)).requires_grad_(False).eval()
        generator.tune()
        generator.place(parts)
        live.restart()
        return generator


class CountedGenerator(Generator):
    """A generator whose weights are counted where `place` puts them."""

    def __init__(self, pipeline: Any, live: LiveBytes, on_gpu: bool) -> None:
        super().__init__(pipeline)
        self.live, self.on_gpu = live, on_gpu

    def place(self, parts: Collection[str]) -> None:
        self.live.place(self.modules, parts if self.on_gpu else list(self.modules))


class OneThread:
    """Runs what it is given when its result is asked for: a tracker sees one thread alone."""

    def __init__(self, workers: int) -> None: ...
    def __enter__(self) -> "OneThread":
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, run: Callable[..., Any], *inputs: Any) -> "Later":
        return Later(partial(run, *inputs))


class Later(NamedTuple):
    """What OneThread has not run yet."""

    result: Callable[[], Any]


def adapt(run: Run, live: LiveBytes) -> None:
    params, dtype = run.params, run.params.models.dtype
    generator = run.open(live, training_dtype(dtype), [])
    off = Style(enabled=False)
    images = read_images(
        generator, run.material.inputs, off, params.prompts, params.visual_guidance
    )
    settings = params.adapt.model_copy(update={"steps": 2})
    if settings.micro_batch_size:  # two parts need as much as more, but for a latent and its states
        settings = settings.model_copy(update={"batch_size": 2 * settings.micro_batch_size})
    learn_adapter(generator, images, settings, dtype, run.material.folder)


def invert(run: Run, live: LiveBytes) -> None:
    dtype = run.params.models.dtype
    generator = run.open(live, training_dtype(dtype), ["vae"])
    settings = run.params.invert.model_copy(
        update={"enabled": True, "steps": 2, "initializer": "photo"}
    )
    learn_style(generator, run.material.real, settings, dtype, run.material.folder)


def naive(run: Run, live: LiveBytes) -> None:
    _render(run, live, naive_job(run.params))


def synthesize(run: Run, live: LiveBytes) -> None:
    job = replace(replica_job(run.params), captions=run.material.inputs.captions, features=None)
    _render(run, live, replace(job, style=None, adapter=None, allocation=None))


def _render(run: Run, live: LiveBytes, job: SynthesisJob) -> None:
    settings = job.settings.model_copy(update={"steps": 2})
    job = replace(job, real=run.material.real.folder, settings=settings)
    generator = run.open(live, run.params.models.dtype, [])
    rows = batches(plan_of(job, run.material.real, 0), settings.shard_size, settings.batch_size)
    with patch("truelike.synthesis.render.ThreadPoolExecutor", OneThread):
        next(Renderer(generator, run.material.real, None).render_all(rows[0]))


def select(run: Run, live: LiveBytes) -> None:
    params = run.params
    images = _images(run)
    settings = params.select.model_copy(update={"classifier_steps": 2})
    judge = Judge.of(settings, params.train.optimization, params.models.classifier)
    with patch("truelike.selection.judge.open_classifier", partial(fake, open_classifier)):
        judge.class_probabilities(images, NETWORK_CLASSES, [images])


def train(run: Run, live: LiveBytes) -> None:
    params, images = run.params, _images(run)
    optimization = params.train.optimization.model_copy(update={"steps": 2})
    path, pretrained, size = params.models.classifier, optimization.pretrained, images.resolution
    model = fit(
        lambda: fake(open_classifier, path, NETWORK_CLASSES, pretrained, size),
        lambda phase: [images],
        [Phase(on="real")],
        optimization,
        seed=0,
    )
    predict(model, images)


def _images(run: Run) -> LabelledImages:
    """Enough black images for a batch of training and of prediction."""
    train = run.params.train
    side, count = train.resolution or run.params.data.resolution, max(run.judged, train.batch_size)
    return LabelledImages(np.zeros((count, side, side, 3), np.uint8), np.arange(count) % 2)


def fake(open_model: Callable[..., Any], *inputs: Any) -> Any:
    """What a function opens, with weights that have a shape and no content."""
    with fake_mode:
        return open_model(*inputs)


STAGES: dict[str, Callable[[Run, LiveBytes], None]] = {
    "adapt": adapt,
    "invert": invert,
    "naive": naive,
    "synthesize": synthesize,
    "select": select,
    "train": train,
}


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """While open, scratch folders are in `folder`."""
    with patch.dict(os.environ, DVC_ROOT=str(folder)):
        yield


def predict_peak(stage: str, run: Run) -> float:
    """GiB of tensors that a stage has at most."""
    gc.collect()
    cuda = as_on_cuda() if run.on_gpu else nullcontext()
    with scratch_in(run.material.folder), counted() as live, cuda:
        STAGES[stage](run, live)
    return live.peak / 2**30


def predictions(
    architecture: Architecture,
    raw: Any,
    on_gpu: bool,
    stages: Iterable[str] = STAGES,
    judged: int = Run.judged,
) -> dict[str, float]:
    """GiB of each stage, under parameters as a nested mapping; without `invert` for a generator
    that can learn no style.
    """
    params = parse_params(raw)
    found = {}
    for stage in stages:
        if stage == "invert" and not FAMILIES[architecture.pipeline].encoders:
            continue
        with tempfile.TemporaryDirectory() as folder:
            material = make_material(Path(folder), params.data.resolution)
            run = Run(architecture, params, material, on_gpu, judged)
            found[stage] = predict_peak(stage, run)
    return found


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """A row per model: GiB of each stage, and the smallest card on which all run."""
    lines = [f"| | {' | '.join(STAGES)} | smallest card |", "|---" * (len(STAGES) + 2) + "|"]
    for name, peaks in found.items():
        cells = [f"{peaks[stage]:.1f}" if stage in peaks else "-" for stage in STAGES]
        needed = max(peaks.values()) + RESERVE
        card = next((f"{size} GB" for size in CARDS if size >= needed), "none")
        lines.append(f"| {name} | {' | '.join(cells)} | {card} |")
    return lines


def keep_others(lines: Sequence[str], names: Sequence[str], page: Path = PAGE) -> list[str]:
    """A table with the rows besides that the page has of other models, in the order of `names`."""
    written = page.read_text(encoding="utf-8").partition("<!-- cards -->")[2].partition("<!-- end")
    rows = {line.split(" | ")[0]: line for line in [*written[0].splitlines(), *lines[2:]]}
    return [*lines[:2], *(rows[f"| {name}"] for name in names if f"| {name}" in rows)]


def main() -> None:
    rows = architectures()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*rows, []], default=list(rows))
    for name in parser.parse_args().names:
        found = predictions(rows[name], settings_of(rows[name].recipe), on_gpu=True)
        write("cards", keep_others(table({name: found}), list(rows)))


if __name__ == "__main__":
    main()

"""A short synthesis job on tiny models."""

from pathlib import Path

import numpy as np
import pandas as pd

from tests.support.models import float32
from truelike.generator.adapter import write_no_adapter
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.generator.style import Style
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_features, write_table
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.settings import FeedbackSettings, JudgeSettings, Synthesize

PROMPTS = Prompts(
    base="a {class}",
    definitions={},
    caption=", {caption}",
    style=" {style}",
    quality=" best",
    negative="bad",
    context="own",
    seed=0,
)
SETTINGS = Synthesize(
    replicas=(0, 1),
    allocation="each",
    budget=None,
    judge=JudgeSettings(folds=2, steps=1),
    feedback=FeedbackSettings(criterion="off", weight=0.03, every=1, network="none"),
    sampler="unipc",
    steps=4,
    guidance_scale=2.0,
    guidance_interval=(0.0, 1.0),
    strength=0.75,
    lora_scale=1.0,
    batch_size=2,
    shard_size=4,
    seed=0,
)
OFF = VisualGuidance(kind="off", centroids=1)


def make_job(generator: Path, real: ImageSet, outputs: Path) -> SynthesisJob:
    """A job under visual guidance by each image's own features, with captions, no style and no
    adapter.
    """
    table = pd.DataFrame({"key": real.keys, "caption": "red", "truncated": False})
    write_table(outputs / "captions.parquet", table)
    features = np.random.default_rng(0).normal(size=(len(real), 32)).astype(np.float32)
    write_features(outputs / "features.parquet", real.keys, features)
    for name in ("style", "adapter"):
        (outputs / name).mkdir()
    Style(enabled=False).save(outputs / "style/style.json")
    write_no_adapter(outputs / "adapter")
    return SynthesisJob(
        stage="synthesize",
        generator=float32(generator),
        prompts=PROMPTS,
        settings=SETTINGS,
        visual_guidance=VisualGuidance(kind="image", centroids=1),
        real=real.folder,
        captions=outputs / "captions.parquet",
        features=outputs / "features.parquet",
        style=outputs / "style",
        adapter=outputs / "adapter",
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file of a folder by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

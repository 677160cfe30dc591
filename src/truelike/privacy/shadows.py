"""A shadow: the pipeline from style inversion to the classifiers, on one half of the real training
images.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from truelike.adaptation.inversion import invert
from truelike.adaptation.lora import AdaptInputs, adapt
from truelike.adaptation.settings import Adapt, Invert
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.imageset.checks import STORAGE_COLUMNS
from truelike.imageset.reading import INDEX_FILE, ImageSet, open_replicas
from truelike.imageset.tables import undecided, write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.privacy.lira import logit_confidence
from truelike.runtime.hub import Model
from truelike.runtime.scratch import finished, scratch, scratch_key, write_finished
from truelike.selection.judge import Judge
from truelike.selection.run import select
from truelike.selection.settings import Select
from truelike.synthesis.allocation import write_allocations
from truelike.synthesis.jobs import replica_job
from truelike.synthesis.judging import judge_out_of_fold
from truelike.synthesis.run import synthesize
from truelike.synthesis.settings import Synthesize
from truelike.training.arms import check_partner, partner_rows
from truelike.training.images import load_images, load_kept
from truelike.training.seeds import Training, seed_file, train_seeds
from truelike.training.settings import Arm, Train


@dataclass(frozen=True)
class Pipeline:
    """The settings and models of the pipeline that is shadowed, and its arms that are attacked."""

    prompts: Prompts
    visual_guidance: VisualGuidance
    invert: Invert
    adapt: Adapt
    synthesize: Synthesize
    select: Select
    train: Train
    arms: Sequence[str]
    generator: Model
    encoder: Model
    classifier: str

    @property
    def accelerated(self) -> Model:
        """The generator, which learning uses without its accelerator."""
        return self.generator

    def on_half(self, seed: int) -> "Pipeline":
        """The pipeline for half of the images: half of the optimizer steps, so that each image is
        seen as often.

        `seed` is that of every stage, so that shadows do not share their random numbers.
        """
        return replace(
            self,
            invert=self.invert.model_copy(update={"seed": seed, "steps": _half(self.invert.steps)}),
            adapt=self.adapt.model_copy(update={"seed": seed, "steps": _half(self.adapt.steps)}),
            synthesize=_on_half(self.synthesize, seed),
            select=self.select.model_copy(
                update={"seed": seed, "classifier_steps": _half(self.select.classifier_steps)}
            ),
            train=self.train.model_copy(update={"steps": _half(self.train.steps)}),
        )


def run_shadow(
    number: int,
    pipeline: Pipeline,
    members: Sequence[str],
    *,
    real: Path,
    captions: Path,
    features: Path,
    out: Path,
) -> None:
    """Run the pipeline on the images `members` (keys) of `real`; write what its arms say of all of
    them to `out`.

    ``confidences.parquet`` has the columns arm, shadow, key, label, logit. From style inversion to
    training, a shadow works on copies of its members' images, captions and features in the scratch
    pool, where a killed run continues.
    """
    pipeline = pipeline.on_half(number)
    images = ImageSet(real)
    with scratch(
        "shadow", shadow_key(number, pipeline, members, real, captions, features)
    ) as folder:
        half = _write_half(images, set(members), captions, features, folder / "half")
        sets = make_images(pipeline, half, folder)
        selection = folder / "selection.parquet"
        if not finished(selection):
            table = _select(pipeline, ImageSet(half / "real"), half / "features.parquet", sets)
            write_finished(selection, partial(table.to_parquet, index=False))
        table = pd.read_parquet(selection)
        arms = {name: pipeline.train.arms[name] for name in pipeline.arms}
        answers = answer(pipeline, arms, ImageSet(half / "real"), table, images, number, folder)
    identity = {"shadow": number, "key": images.keys, "label": images.labels}
    rows = [
        pd.DataFrame({"arm": arm} | identity | {"logit": logits}) for arm, logits in answers.items()
    ]
    write_table(out / "confidences.parquet", pd.concat(rows, ignore_index=True))


def make_images(pipeline: Pipeline, half: Path, folder: Path) -> list[ImageSet]:
    """Invert, adapt and synthesize on the real images in `half`; return the replicas, which are
    below `folder`.
    """
    style, adapter = folder / "style", folder / "adapter"
    inputs = AdaptInputs(half / "real", half / "captions.parquet", half / "features.parquet", style)
    prompts, guidance, generator = pipeline.prompts, pipeline.visual_guidance, pipeline.generator
    invert(pipeline.invert, generator, inputs.real, style)
    adapt(pipeline.adapt, prompts, guidance, generator, inputs, adapter)
    allocation = folder / "allocation"
    allocate(pipeline, ImageSet(inputs.real), allocation)
    job = replace(replica_job(pipeline), **vars(inputs), adapter=adapter, allocation=allocation)
    for replica in pipeline.synthesize.replicas:
        synthesize(job, replica, folder / "synthetic" / str(replica))
    return open_replicas(folder / "synthetic", pipeline.synthesize.replicas)


def allocate(pipeline: Pipeline, half: ImageSet, out: Path) -> None:
    """Say how many synthetic images each image of the half is the source of."""
    settings, judged = pipeline.synthesize, None
    if settings.is_judged:
        optimization = pipeline.train.optimization
        judged = judge_out_of_fold(
            half, pipeline.classifier, optimization, settings.judge, settings.seed
        )
    write_allocations(half, settings, judged, out)


def answer(
    pipeline: Pipeline,
    arms: Mapping[str, Arm],
    half: ImageSet,
    selection: pd.DataFrame,
    images: ImageSet,
    seed: int,
    folder: Path,
) -> dict[str, np.ndarray]:
    """Train each arm on `half` and the selected synthetic images; the logit confidences of all
    `images` by arm (N,).
    """
    answers = {}
    stored = pipeline.train.resolution, pipeline.train.streaming
    for name, arm in arms.items():
        rows = partner_rows(selection, arm)
        partner = load_kept(rows if arm.uses_partner else rows.iloc[:0], half.class_names, *stored)
        check_partner(name, arm, partner, half.class_names, rows["label"])
        training = Training(
            classifier=pipeline.classifier,
            num_classes=len(half.class_names),
            phases=arm.phases,
            optimization=pipeline.train.optimization,
            real=load_images(half, *stored),
            partner=partner,
            evaluated={"images": load_images(images, *stored)},
            checkpoint_every=pipeline.train.checkpoint_every,
        )
        place = folder / "arms" / name
        place.mkdir(parents=True, exist_ok=True)
        train_seeds(training, [seed], place)
        answers[name] = logit_confidence(np.load(seed_file(place, seed))["images"], images.labels)
    return answers


def _on_half(settings: Synthesize, seed: int) -> Synthesize:
    judge = settings.judge.model_copy(update={"steps": _half(settings.judge.steps)})
    budget = settings.budget and _half(settings.budget)
    return settings.model_copy(update={"seed": seed, "judge": judge, "budget": budget})


def _half(steps: int) -> int:
    return max(1, steps // 2)


def shadow_key(number: int, pipeline: Pipeline, members: Sequence[str], *files: Path) -> str:
    """Changes with everything that decides a shadow's answers."""
    settings = {
        name: value.model_dump() if isinstance(value, BaseModel) else value
        for name, value in vars(pipeline).items()
    }
    generator = pipeline.generator
    models = [generator.path, pipeline.encoder.path, pipeline.classifier]
    models += [generator.accelerator] if generator.accelerator else []
    real, *tables = files
    return scratch_key(
        __file__, [number, settings, sorted(members)], *models, real / INDEX_FILE, *tables
    )


def _select(
    pipeline: Pipeline, half: ImageSet, features: Path, sets: list[ImageSet]
) -> pd.DataFrame:
    if "synthetic" not in pipeline.select.sets:
        return pd.concat([undecided(images) for images in sets], ignore_index=True)
    judge = Judge.of(pipeline.select, pipeline.train.optimization, pipeline.classifier)
    return select(sets, half, features, pipeline.select, pipeline.encoder, judge)


def _write_half(
    images: ImageSet, members: set[str], captions: Path, features: Path, out: Path
) -> Path:
    """Copy the members' images, captions and features into `out`, whole or not at all."""
    if not out.exists():
        partial_out = out.with_name(out.name + ".partial")
        shutil.rmtree(partial_out, ignore_errors=True)
        columns = images.index.drop(columns=[*STORAGE_COLUMNS, "key", "label", "class_name"])
        samples = (
            Sample(
                key,
                int(label),
                images.pixels(position),
                {str(name): columns[name].iloc[position] for name in columns},
            )
            for position, (key, label) in enumerate(zip(images.keys, images.labels, strict=True))
            if key in members
        )
        write_image_set(partial_out / "real", samples, images.class_names)
        for table in (captions, features):
            own = pd.read_parquet(table)
            write_table(partial_out / table.name, own[own["key"].isin(members)])
        partial_out.replace(out)
    return out

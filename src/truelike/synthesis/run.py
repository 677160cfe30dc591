"""Makes a replica: renders a plan shard by shard in the scratch pool and publishes the image
set.
"""

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from truelike.generator.conditioning import guidance_vectors
from truelike.generator.pipeline import (
    add_adapter,
    add_style,
    check_resolution,
    identify,
    open_generator,
    read_adapter,
    read_style,
)
from truelike.generator.prompts import truncated
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.imageset.checks import SUMS_FILE, write_sums
from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.imageset.tables import read_captions, read_features, read_rewrites
from truelike.imageset.writing import Sample, shard_name, write_index, write_shard
from truelike.runtime.errors import TruelikeError
from truelike.runtime.executor import Part, Progress, map_parts
from truelike.runtime.hub import Model
from truelike.runtime.ledger import count_images
from truelike.runtime.scratch import publish, scratch, scratch_key, write_once
from truelike.synthesis.plan import batches, make_plan
from truelike.synthesis.render import Renderer
from truelike.synthesis.settings import Naive, Piece, Synthesize


@dataclass(frozen=True)
class Job:
    """Everything that decides a replica: settings, models and inputs; None for an input that is not
    used.
    """

    stage: str
    generator: Model
    prompts: Prompts
    settings: Synthesize
    visual_guidance: VisualGuidance
    real: Path
    captions: Path | None = None
    features: Path | None = None
    style: Path | None = None
    adapter: Path | None = None


def replica_job(
    settings: Synthesize,
    *,
    prompts: Prompts,
    visual_guidance: VisualGuidance,
    generator: Model,
) -> Job:
    """A replica as a job on what the earlier stages wrote: captions, features, style and
    adapter.
    """
    outputs = Path("outputs")
    return Job(
        stage="synthesize",
        generator=generator,
        prompts=prompts,
        settings=settings,
        visual_guidance=visual_guidance,
        real=outputs / "real/train",
        captions=outputs / "captions.parquet",
        features=outputs / "features.parquet",
        style=outputs / "style",
        adapter=outputs / "adapter",
    )


def naive_job(
    naive: Naive,
    *,
    base: str | tuple[str, ...],
    definitions: Mapping[str, str],
    prompt_seed: int,
    negative: str,
    generator: Model,
    real: Path,
) -> Job:
    """The yardstick as a job: the base prompt only, from pure noise, nothing learned."""
    base_only = {
        "base": base,
        "definitions": definitions,
        "negative": negative,
        "seed": prompt_seed,
    }
    return Job(
        stage="naive",
        generator=generator,
        prompts=Prompts.model_validate(base_only | {"caption": "", "style": "", "quality": ""}),
        settings=Synthesize(
            replicas=(0,),
            guidance_interval=(0, 1),
            strength=1.0,
            lora_scale=0.0,
            **naive.model_dump(),
        ),
        visual_guidance=VisualGuidance(kind="off", centroids=1),
        real=real,
    )


def without(pieces: Collection[Piece], job: Job) -> Job:
    """A job without some pieces: captions, the learned style, the adapter, the latent prior."""
    return replace(
        job,
        stage="partial",
        captions=None if "caption" in pieces else job.captions,
        style=None if "style" in pieces else job.style,
        adapter=None if "adapter" in pieces else job.adapter,
        settings=job.settings.model_copy(update={"strength": 1.0})
        if "prior" in pieces
        else job.settings,
    )


def plan_of(job: Job, real: ImageSet, replica: int) -> pd.DataFrame:
    """The plan of a replica, sorted by class where classes have adapters of their own.

    Raises TruelikeError if the adapter was trained with another style.
    """
    style, adapter = read_style(job.style), read_adapter(job.adapter)
    if adapter.enabled and adapter.style != style.fingerprint:
        raise TruelikeError(
            f"{job.adapter}: trained with style {adapter.style or 'none'}, but {job.style} holds "
            f"{style.fingerprint or 'none'}; run the stage adapt again"
        )
    plan = make_plan(
        real.index,
        read_captions(job.captions, real.keys) if job.captions else [""] * len(real),
        read_rewrites(job.captions, real.keys) if job.captions else [[]] * len(real),
        job.prompts,
        job.settings,
        job.visual_guidance,
        replica,
        generator=identify(job.generator.path),
        adapter=adapter.fingerprint,
        style=style.fingerprint,
        style_texts=[style.text(name) for name in real.index["class_name"]],
    )
    return (
        plan
        if adapter.labels is None
        else plan.sort_values("label", kind="stable", ignore_index=True)
    )


def open_renderer(job: Job, real: ImageSet) -> Renderer:
    """Open the generator with style, adapter and visual guidance; raises TruelikeError where these
    do not fit.
    """
    pipeline = open_generator(job.generator)
    check_resolution(pipeline, real)
    if job.style:
        add_style(pipeline, job.style)
    lora_scale = job.settings.lora_scale
    adapter = add_adapter(pipeline, job.adapter, lora_scale) if job.adapter else None
    vectors = None
    if job.features:
        features = read_features(job.features, real.keys)
        vectors = guidance_vectors(pipeline, features, real.labels, job.visual_guidance)
    has_classes = adapter is not None and adapter.labels is not None and lora_scale > 0
    return Renderer(pipeline, real, vectors, lora_scale if has_classes else None)


def job_fingerprint(job: Job, replica: int) -> str:
    """Changes with everything that decides a replica's bytes, and not with which other replicas
    there are.
    """
    settings = {
        "dtype": job.generator.dtype,
        "prompts": job.prompts.model_dump(),
        "settings": job.settings.model_dump(exclude={"replicas"}),
        "visual_guidance": job.visual_guidance.model_dump(),
        "replica": replica,
    }
    inputs = [path for path in (job.captions, job.features, job.style, job.adapter) if path]
    return scratch_key(__file__, settings, job.generator.path, job.real / INDEX_FILE, *inputs)


def synthesize(job: Job, replica: int, out: Path) -> None:
    """Make one replica as an image set in `out`; a killed run loses at most a shard and ends with
    the same bytes.
    """
    real = ImageSet(job.real)
    shards = batches(plan_of(job, real, replica), job.settings.shard_size, job.settings.batch_size)
    names = [shard_name(number) for number in range(len(shards))]
    parts = [
        Part((name, rows_file(name)), (name, shard), sum(map(len, shard)))
        for name, shard in zip(names, shards, strict=True)
    ]
    with scratch(job.stage, job_fingerprint(job, replica)) as folder:
        count_images(
            map_parts(parts, folder, partial(_open, job), make_shard, f"{job.stage} {replica}")
        )
        rows = pd.concat(
            [pd.read_parquet(folder / rows_file(name)) for name in names], ignore_index=True
        )
        index = folder / INDEX_FILE
        write_once(index, lambda path: write_index(path, rows, real.class_names))
        files = [index, *(folder / name for name in names)]
        write_once(folder / SUMS_FILE, lambda path: write_sums(path, files))
        publish([*files, folder / SUMS_FILE], out)


def rows_file(shard: str) -> str:
    """The name of the table of index rows beside a shard."""
    return shard.replace(".tar", ".parquet")


def _open(job: Job) -> Renderer:
    return open_renderer(job, ImageSet(job.real))


def make_shard(
    renderer: Renderer, work: tuple[str, list[pd.DataFrame]], progress: Progress
) -> list[bytes]:
    """Render the batches of the shard with this name: its tar, and the table of its index rows as
    parquet.
    """
    name, shard = work

    def samples() -> Iterator[Sample]:
        cut = iter(truncated(renderer.pipeline.tokenizer, pd.concat(shard)["prompt"].tolist()))
        for batch, images in zip(shard, renderer.render_all(shard), strict=True):
            for row, pixels in zip(batch.to_dict("records"), images, strict=True):
                columns = {
                    str(name): value for name, value in row.items() if name not in ("key", "label")
                }
                columns["truncated"] = next(cut)
                yield Sample(str(row["key"]), int(row["label"]), pixels, columns)
            progress(len(batch))

    tar, table = io.BytesIO(), io.BytesIO()
    write_shard(tar, name, samples(), renderer.real.class_names).to_parquet(table, index=False)
    return [tar.getvalue(), table.getvalue()]

"""Makes a replica: renders a plan shard by shard in the scratch pool and publishes the image
set.
"""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from truelike.generator.accelerator import add_accelerator
from truelike.generator.adapter import read_adapter
from truelike.generator.generator import Generator, identify, image_size
from truelike.generator.guidance import guidance_vectors
from truelike.generator.prompts import truncated
from truelike.generator.style import read_style
from truelike.imageset.checks import SUMS_FILE, write_sums
from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.imageset.tables import (
    read_captions,
    read_column,
    read_features,
    read_rewrites,
)
from truelike.imageset.writing import Sample, shard_name, write_index, write_shard
from truelike.runtime.errors import TruelikeError
from truelike.runtime.executor import Part, Progress, map_parts
from truelike.runtime.ledger import count_images
from truelike.runtime.scratch import publish, scratch, scratch_key, write_once
from truelike.synthesis.allocation import allocation_file
from truelike.synthesis.critic import network_identity, open_critic
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.plan import Learned, batches, make_plan
from truelike.synthesis.render import Renderer

ALLOCATING = ("allocation", "budget", "judge")  # settings that decide the table of a replica


def plan_of(job: SynthesisJob, real: ImageSet, replica: int) -> pd.DataFrame:
    """The plan of a replica, sorted by class where classes have adapters of their own.

    Raises TruelikeError if the adapter was trained with another style.
    """
    style, adapter = read_style(job.style), read_adapter(job.adapter)
    if adapter.enabled and adapter.style != style.fingerprint:
        raise TruelikeError(
            f"{job.adapter}: trained with style {adapter.style or 'none'}, but {job.style} holds "
            f"{style.fingerprint or 'none'}; run the stage adapt again"
        )
    table = real.index[["key", "label", "class_name"]].assign(
        caption=read_captions(job.captions, real.keys) if job.captions else "",
        style=[style.text(name) for name in real.index["class_name"]],
    )
    rewrites = read_rewrites(job.captions, real.keys) if job.captions else [[]] * len(real)
    table["rewrites"] = pd.Series(rewrites, index=table.index, dtype=object)
    feedback = job.settings.feedback
    network = network_identity(Path(feedback.network)) if feedback.is_on else ""
    learned = Learned(identify(job.generator), adapter.fingerprint, style.fingerprint, network)
    counts = None
    if job.allocation:
        counts = read_column(job.allocation / allocation_file(replica), real.keys, "count")
    guidance = job.visual_guidance
    plan = make_plan(table, job.prompts, job.settings, guidance, replica, learned, counts)
    if adapter.labels is None:
        return plan
    return plan.sort_values("label", kind="stable", ignore_index=True)


def open_renderer(job: SynthesisJob, real: ImageSet) -> Renderer:
    """Open the generator with style, adapter and visual guidance; raises TruelikeError where these
    do not fit.
    """
    generator = Generator.open(job.generator, parts=[])
    generator.latent_shape(*image_size(real))
    add_accelerator(generator, job.generator.accelerator)
    if job.style:
        generator.add_style(job.style)
    lora_scale = job.settings.lora_scale
    adapter = generator.add_adapter(job.adapter, lora_scale) if job.adapter else None
    vectors = None
    if job.features:
        features = read_features(job.features, real.keys)
        vectors = guidance_vectors(generator, features, real.labels, job.visual_guidance)
    has_classes = adapter is not None and adapter.labels is not None and lora_scale > 0
    critic, feedback = None, job.settings.feedback
    if feedback.criterion != "off":
        generator.pipeline.vae.float()  # of its gradients
        network = Path(feedback.network)
        critic = open_critic(network, feedback.criterion, real.class_names, generator.device)
    return Renderer(generator, real, vectors, lora_scale if has_classes else None, critic)


def replica_key(job: SynthesisJob, replica: int) -> str:
    """Changes with everything that decides a replica's bytes, and not with which other replicas
    there are.
    """
    settings = {
        "dtype": job.generator.arithmetic,
        "prompts": job.prompts.model_dump(),
        "settings": job.settings.model_dump(exclude={"replicas", *ALLOCATING}),
        "visual_guidance": job.visual_guidance.model_dump(),
        "replica": replica,
    }
    generator = job.generator
    made = (generator.accelerator, job.captions, job.features, job.style, job.adapter)
    inputs = [path for path in made if path]
    if job.allocation:
        inputs.append(job.allocation / allocation_file(replica))
    feedback = job.settings.feedback
    if feedback.is_on:
        settings["network"] = network_identity(Path(feedback.network))
    return scratch_key(__file__, settings, generator.path, job.real / INDEX_FILE, *inputs)


def synthesize(job: SynthesisJob, replica: int, out: Path) -> None:
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
    with scratch(job.stage, replica_key(job, replica)) as folder:
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


def _open(job: SynthesisJob) -> Renderer:
    return open_renderer(job, ImageSet(job.real))


def make_shard(
    renderer: Renderer, work: tuple[str, list[pd.DataFrame]], progress: Progress
) -> list[bytes]:
    """Render the batches of the shard with this name: its tar, and the table of its index rows as
    parquet.
    """
    name, shard = work

    def samples() -> Iterator[Sample]:
        cut = iter(truncated(renderer.generator.reader, pd.concat(shard)["prompt"].tolist()))
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

"""Makes one synthetic image again from its index row, with the models of the current checkout."""

from pathlib import Path

import numpy as np
import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.plan import batches
from truelike.synthesis.run import open_renderer, plan_of


def regenerate(job: SynthesisJob, folder: Path, key: str) -> np.ndarray:
    """Render the synthetic image `key` of the image set `folder` again, uint8 (H, W, 3).

    Its whole batch is rendered, so that on the machine that made it the bytes are the same. Raises
    TruelikeError if there is no such image, or if settings, captions, style, adapter or generator
    of the job are no longer those of its row.
    """
    stored = ImageSet(folder).index.set_index("key", drop=False)
    if key not in stored.index:
        raise TruelikeError(f"{folder}: no image {key!r}; the first is {stored.index[0]!r}")
    if "replica" not in stored:
        raise TruelikeError(
            f"{folder}: holds no images of a replica; only what this pipeline synthesized can be "
            "regenerated"
        )
    real = ImageSet(job.real)
    replicas: pd.Series = stored["replica"]
    plan = plan_of(job, real, int(replicas[key]))
    shards = batches(plan, job.settings.shard_size, job.settings.batch_size)
    batch = next((batch for shard in shards for batch in shard if key in set(batch["key"])), None)
    if batch is None:
        source = stored.loc[key, "source_key"]
        raise TruelikeError(
            f"{folder}: image {key!r} was made from {source!r}, which is no longer a training "
            "image, or to which the allocation gives fewer images"
        )
    _check_rows(folder, stored, batch)
    (images,) = open_renderer(job, real).render_all([batch])
    return images[batch["key"].tolist().index(key)]


def _check_rows(folder: Path, stored: pd.DataFrame, batch: pd.DataFrame) -> None:
    """Raise TruelikeError unless the rows of a planned batch are those that are stored."""
    for row in batch.to_dict("records"):
        if row["key"] not in stored.index:
            raise TruelikeError(
                f"{folder}: {row['key']!r} of the same batch is missing; data.shots, data.seed "
                "or synthesize.allocation changed"
            )
        old = stored.loc[[row["key"]]].to_dict("records")[0]
        changed = [
            f"{name} is {value!r}, was {old.get(name)!r}"
            for name, value in row.items()
            if old.get(name) != value
        ]
        if changed:
            raise TruelikeError(
                f"{folder}: {row['key']!r} was made with other settings: {'; '.join(changed)}; "
                "check out the commit that made it"
            )

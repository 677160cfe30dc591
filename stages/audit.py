"""Measure how near synthetic images are to the real ones, and to single training images, in the encoder's features."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.data.imageset import ImageSet, open_replicas
from truelike.data.tables import write_table
from truelike.metrics.appearance import low_level
from truelike.metrics.audit import audit
from truelike.metrics.compare import Features
from truelike.metrics.memorisation import views
from truelike.models.encoder import Encoder, open_encoder

OUTPUTS = Path("outputs")


def main() -> None:
    params = load_params()
    batch_size, seed = params.audit.batch_size, params.audit.seed
    encoder = open_encoder(params.models.encoder, params.models.dtype)
    train = ImageSet(OUTPUTS / "real" / "train")
    selection = pd.read_parquet(OUTPUTS / "selection" / "synthetic.parquet")
    kept = set(selection["key"][selection["keep"]])
    replicas = selection["folder"].map(lambda folder: Path(folder).name).unique()
    sets = {
        "naive": _embed(encoder, open_replicas(OUTPUTS / "naive", replicas), batch_size),
        "synthetic": _embed(encoder, open_replicas(OUTPUTS / "synthetic", replicas), batch_size, kept),
        "real": _embed(encoder, [ImageSet(OUTPUTS / "real" / "test")], batch_size),
    }
    reference = _embed(encoder, [train], batch_size)
    guises = [[encoder.embed(view, batch_size) for view in views(batch)] for batch in train.batches(batch_size)]
    all_views = np.concatenate([np.concatenate(view) for view in zip(*guises, strict=True)])
    found = audit(reference, all_views, sets, train.class_names, params.audit.neighbours, params.audit.bootstrap, seed)
    for name in ("per_class", "near_copies", "curves"):
        write_table(OUTPUTS / "audit" / f"{name}.parquet", getattr(found, name))
    file = Path("metrics/audit.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found.numbers(), indent=2) + "\n", encoding="utf-8")


def _embed(encoder: Encoder, sets: list[ImageSet], batch_size: int, kept: set[str] | None = None) -> Features:
    """What is measured of the images of several sets, of those in `kept` where it is given."""
    batches = [
        (encoder.embed(batch, batch_size), low_level(batch)) for images in sets for batch in images.batches(batch_size)
    ]
    values, statistics = (np.concatenate(column) for column in zip(*batches, strict=True))
    keys = [key for images in sets for key in images.keys]
    features = Features(keys, np.concatenate([images.labels for images in sets]), values, statistics)
    return features.take(np.array([row for row, key in enumerate(keys) if kept is None or key in kept], int))


if __name__ == "__main__":
    run("audit", main)

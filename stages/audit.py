"""Measure how near synthetic images are to the real ones, and to single training images, in the encoder's features."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.data.imageset import ImageSet
from truelike.data.tables import write_table
from truelike.metrics.audit import Features, audit
from truelike.models.encoder import Encoder, open_encoder

OUTPUTS = Path("outputs")


def main() -> None:
    params = load_params()
    settings = params.audit
    encoder = open_encoder(params.models.encoder, params.models.dtype)
    train = ImageSet(OUTPUTS / "real" / "train")
    selection = pd.read_parquet(OUTPUTS / "selection" / "synthetic.parquet")
    kept = set(selection["key"][selection["keep"]])
    replicas = selection["folder"].map(lambda folder: Path(folder).name).unique()
    sets = {
        "naive": _embed(encoder, [ImageSet(OUTPUTS / "naive" / replica) for replica in replicas], settings.batch_size),
        "synthetic": _embed(
            encoder, [ImageSet(OUTPUTS / "synthetic" / replica) for replica in replicas], settings.batch_size, kept
        ),
        "real": _embed(encoder, [ImageSet(OUTPUTS / "real" / "test")], settings.batch_size),
    }
    reference = _embed(encoder, [train], settings.batch_size)
    found = audit(reference, sets, train.class_names, settings.neighbours, settings.bootstrap, settings.seed)
    write_table(OUTPUTS / "audit" / "per_class.parquet", found.per_class)
    write_table(OUTPUTS / "audit" / "near_copies.parquet", found.near_copies)
    file = Path("metrics/audit.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found.metrics, indent=2) + "\n", encoding="utf-8")


def _embed(encoder: Encoder, sets: list[ImageSet], batch_size: int, kept: set[str] | None = None) -> Features:
    """Features of the images of several sets, of those in `kept` where it is given."""
    values = [encoder.embed(batch, batch_size) for images in sets for batch in images.batches(batch_size)]
    keys = [key for images in sets for key in images.keys]
    labels = np.concatenate([images.labels for images in sets])
    chosen = [position for position, key in enumerate(keys) if kept is None or key in kept]
    return Features([keys[position] for position in chosen], labels[chosen], np.concatenate(values)[chosen])


if __name__ == "__main__":
    run("audit", main)

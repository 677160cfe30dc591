"""Decide which synthetic images to train on, with nothing but the real training images to judge by."""

from pathlib import Path

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.imageset.tables import undecided, write_table
from truelike.runtime.scratch import remove_stale
from truelike.selection.run import select

OUTPUTS = Path("outputs")


def main() -> None:
    params = load_params()
    replicas = params.synthesize.replicas
    write_table(OUTPUTS / "selection" / "extra.parquet", undecided(ImageSet(OUTPUTS / "extra")))
    train = ImageSet(OUTPUTS / "real" / "train")
    for name in ("naive", "synthetic"):
        remove_stale(OUTPUTS / name, {str(replica) for replica in replicas})
        sets = open_replicas(OUTPUTS / name, replicas)
        if name in params.select.sets:
            features = OUTPUTS / "features.parquet"
            encoder, classifier, dtype = params.models.encoder, params.models.classifier, params.models.dtype
            table = select(sets, train, features, params.select, encoder, dtype, classifier)
        else:
            table = pd.concat([undecided(images) for images in sets], ignore_index=True)
        write_table(OUTPUTS / "selection" / f"{name}.parquet", table)
        print(f"select: {name}: {int(table['keep'].sum())} of {len(table)} images kept")


if __name__ == "__main__":
    run("select", main)

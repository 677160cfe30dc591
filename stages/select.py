"""Decide which synthetic images to train on, with nothing but the real training images to
judge by.
"""

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.imageset.tables import undecided, write_table
from truelike.paths import FEATURES, NAIVE, SYNTHETIC, TRAIN, selection_table
from truelike.runtime.scratch import remove_stale
from truelike.selection.judge import Judge
from truelike.selection.run import select


def main() -> None:
    params = load_params()
    replicas = params.synthesize.replicas
    train = ImageSet(TRAIN)
    for name, folder in (("naive", NAIVE), ("synthetic", SYNTHETIC)):
        remove_stale(folder, {str(replica) for replica in replicas})
        sets = open_replicas(folder, replicas)
        if name in params.select.sets:
            judge = Judge.of(params.select, params.train.optimization, params.models.classifier)
            table = select(sets, train, FEATURES, params.select, params.encoder, judge)
        else:
            table = pd.concat([undecided(images) for images in sets], ignore_index=True)
        write_table(selection_table(name), table)
        print(f"select: {name}: {int(table['keep'].sum())} of {len(table)} images kept")


if __name__ == "__main__":
    run("select", main)

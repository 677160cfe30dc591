"""Make the images of one round with the network of the arm before it (deliberate practice,
arXiv 2502.15588); those of earlier rounds stay.
"""

import pandas as pd

from stages import named, run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.paths import ROUNDS, TRAIN, selection_table
from truelike.synthesis.jobs import round_job
from truelike.synthesis.rounds import allocate_round, with_digests
from truelike.synthesis.run import synthesize


def main() -> None:
    params = load_params()
    name = named("rounds", params.rounds)
    settings, job = params.rounds[name], round_job(params, name)
    allocate_round(job, settings, ImageSet(TRAIN))
    images = ROUNDS / name / "images"
    synthesize(job, settings.replica, images)
    earlier = with_digests(pd.read_parquet(selection_table(settings.adds_to)))
    new = with_digests(undecided(ImageSet(images)))
    table = pd.concat([earlier, new], ignore_index=True)
    write_table(selection_table(f"rounds/{name}"), table)


if __name__ == "__main__":
    run("round", main)

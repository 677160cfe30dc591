"""Make one replica without some of what `synthesize` uses, to see what each piece brings."""

import sys

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.paths import PARTIAL, selection_table
from truelike.synthesis.run import replica_job, synthesize, without


def main() -> None:
    params = load_params()
    name = sys.argv[1]
    whole = replica_job(
        params.synthesize,
        prompts=params.prompts,
        visual_guidance=params.visual_guidance,
        generator=params.generator,
    )
    out = PARTIAL / name
    synthesize(without(params.partial[name].without, whole), 0, out)
    write_table(selection_table(f"partial/{name}"), undecided(ImageSet(out)))


if __name__ == "__main__":
    run("partial", main)

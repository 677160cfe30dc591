"""Make one replica without some of what `synthesize` uses, to see what each piece brings."""

import sys
from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.synthesis.run import replica_job, synthesize, without

OUTPUTS = Path("outputs")


def main() -> None:
    params = load_params()
    name = sys.argv[1]
    whole = replica_job(
        params.synthesize,
        prompts=params.prompts,
        visual_guidance=params.visual_guidance,
        generator=params.models.generator,
        dtype=params.models.dtype,
    )
    out = OUTPUTS / "partial" / name
    synthesize(without(params.partial[name].without, whole), 0, out)
    write_table(OUTPUTS / "selection" / "partial" / f"{name}.parquet", undecided(ImageSet(out)))


if __name__ == "__main__":
    run("partial", main)

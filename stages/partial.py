"""Make one replica without some of what `synthesize` uses, to see what each piece brings."""

from stages import named, run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.paths import PARTIAL, selection_table
from truelike.synthesis.jobs import partial_job
from truelike.synthesis.run import synthesize


def main() -> None:
    params = load_params()
    name = named("partial", params.partial)
    out = PARTIAL / name
    synthesize(partial_job(params, name), 0, out)
    write_table(selection_table(f"partial/{name}"), undecided(ImageSet(out)))


if __name__ == "__main__":
    run("partial", main)

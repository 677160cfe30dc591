"""Reads the real images and writes them as image sets: train (few shots), validation, test, and
extra.
"""

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.paths import EXTRA, REAL, selection_table
from truelike.sources.prepare import prepare


def main() -> None:
    prepare(load_params().data, real=REAL, extra=EXTRA)
    write_table(selection_table("extra"), undecided(ImageSet(EXTRA)))


if __name__ == "__main__":
    run("prepare", main)

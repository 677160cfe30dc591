"""Corrupt some test images at five severity levels (Hendrycks and Dietterich, ICLR 2019).

Only trained networks see them.
"""

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.paths import CORRUPTED, TEST
from truelike.sources.ood import write_corrupted


def main() -> None:
    write_corrupted(ImageSet(TEST), load_params().corrupt, CORRUPTED)


if __name__ == "__main__":
    run("corrupt", main)

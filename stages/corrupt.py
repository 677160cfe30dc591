"""Corrupt some test images in five severities (Hendrycks and Dietterich, ICLR 2019); only trained networks see them."""

from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.sources.ood import write_corrupted


def main() -> None:
    write_corrupted(ImageSet("outputs/real/test"), load_params().corrupt, Path("outputs/ood/corrupted"))


if __name__ == "__main__":
    run("corrupt", main)

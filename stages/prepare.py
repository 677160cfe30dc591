"""Reads the real images and writes them as image sets: train (few shots), validation, test, and
extra.
"""

from stages import run
from truelike.config import load_params
from truelike.paths import EXTRA, REAL
from truelike.sources.prepare import prepare


def main() -> None:
    prepare(load_params().data, real=REAL, extra=EXTRA)


if __name__ == "__main__":
    run("prepare", main)

"""Learn the style of the data set, or of each class, as a new word (dataset style inversion, BT,
arXiv 2403.19866).
"""

from stages import run
from truelike.adaptation.inversion import invert
from truelike.config import load_params
from truelike.paths import STYLE, TRAIN


def main() -> None:
    params = load_params()
    invert(params.invert, params.generator, TRAIN, STYLE)


if __name__ == "__main__":
    run("invert", main)

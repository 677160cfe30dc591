"""Train one arm (bridged transfer and its controls, BT, arXiv 2403.19866) over all seeds at equal
optimizer steps.
"""

import sys

from stages import run
from truelike.config import load_params
from truelike.paths import ARMS, OOD, REAL, selection_table
from truelike.runtime.errors import TruelikeError
from truelike.training.arms import train_arm


def main() -> None:
    params = load_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.train.arms:
        raise TruelikeError(
            f"give the name of one arm of train.arms: {', '.join(params.train.arms)}"
        )
    name = sys.argv[1]
    arm = params.train.arms[name]
    train_arm(
        name,
        arm,
        params.train,
        params.models.classifier,
        real=REAL,
        selection=selection_table(arm.partner),
        ood=[OOD / other for other in ("corrupted", *params.ood)],
        out=ARMS / name,
    )


if __name__ == "__main__":
    run("train", main)

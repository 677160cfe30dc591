"""Train one arm (bridged transfer and its controls, BT, arXiv 2403.19866) over all seeds at equal
optimizer steps.
"""

from stages import named, run
from truelike.config import load_params
from truelike.paths import ARMS, OOD, REAL, selection_table
from truelike.runtime.scratch import is_first, remove_stale
from truelike.training.arms import train_arm


def main() -> None:
    params = load_params()
    name = named("train.arms", params.train.arms)
    arm = params.train.arms[name]
    if is_first():  # DVC records outputs/ood as this stage leaves it
        remove_stale(OOD, {"corrupted", *params.ood})
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

"""The audit's and the ledger's numbers as rows of tables, with the words that explain them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from truelike.reporting.settings import Rung
from truelike.synthesis.settings import PartialSet, Piece
from truelike.training.settings import Arm

MEASURES = {  # name: (shown as, digits, factor)
    "frechet": ("Fréchet distance ↓", 2, 1),
    "kernel": ("kernel distance, cubic ↓", 3, 1),
    "kernel_rbf": ("kernel distance, Gaussian ↓", 4, 1),
    "precision": ("precision ↑", 3, 1),
    "density": ("density ↑", 3, 1),
    "recall": ("recall ↑", 3, 1),
    "coverage": ("coverage ↑", 3, 1),
    "vendi": ("Vendi score ↑", 2, 1),
    "two_sample": ("told apart from real ones, % of images ↓", 1, 100),
    "low_level_difference": ("low-level difference, standard deviations ↓", 2, 1),
    "label_error": ("another class to a probe of the real images, % ↓", 1, 100),
    "probe_accuracy": ("accuracy of a probe of the set on the real training images, % ↑", 1, 1),
    "leep": ("LEEP of that probe, nats ↑", 3, 1),
    "near_copy_rate": ("near-copies, % ↓", 2, 100),
    "authentic": ("authentic (AuthPct), % ↑", 1, 100),
}
GAPS = {  # name: (shown as, what it is, digits, factor)
    "content": (
        "content",
        "share of real images that new real images cover and these do not, points",
        1,
        100,
    ),
    "appearance": (
        "appearance",
        "low-level difference beyond that of new real images, standard deviations",
        2,
        1,
    ),
    "label": (
        "label",
        "images that are another class to a probe of the real ones, beyond new real ones, points",
        1,
        100,
    ),
    "two_sample": (
        "all together",
        "images told apart from the training ones, beyond new real ones, points",
        1,
        100,
    ),
}
ATTACKS = {
    "lira_online": "LiRA, online",
    "lira_offline": "LiRA, offline",
    "threshold": "confidence threshold",
}
PIECES: dict[Piece, str] = {
    "caption": "caption",
    "style": "invert",
    "adapter": "adapt",
}  # and the stage that makes it
MAKERS = {  # stages whose images an arm's partner is
    "synthetic": ("caption", "embed", "invert", "adapt", "synthesize", "select"),
    "naive": ("naive",),
    "extra": (),
}


def recovery(waterfall: Sequence[Rung], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The steps from each arm of the waterfall to the next, and from the last to the arm `real`.

    What each recovers: rows of arm, against, closes, points, low, high out of `comparisons`. Arms
    that were not trained are passed over; there is no row without any.
    """
    known = {
        (row["arm"], row["against"]): (row["points"], row["low"], row["high"])
        for row in comparisons.to_dict("records")
    }
    trained = {arm for pair in known for arm in pair}
    rungs = [rung for rung in waterfall if rung.arm in trained]
    rows = []
    for before, rung in pairwise([*rungs, Rung(arm="real")]):
        arm, against = rung.arm, before.arm
        if (arm, against) in known:
            value, low, high = known[arm, against]
        else:
            value, high, low = (-number for number in known[against, arm])
        rows.append((arm, against, rung.closes or "", value, low, high))
    return pd.DataFrame(rows, columns=["arm", "against", "closes", "points", "low", "high"])


def arm_costs(
    costs: pd.DataFrame,
    arms: Mapping[str, Arm],
    partial: Mapping[str, PartialSet],
    accuracy: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """What each arm took, in seconds: making its partner's images, training, and both, beside its
    accuracy.
    """
    single = costs.set_index("stage")["seconds"]
    seconds = pd.concat([single, single.groupby(single.index.str.split("@").str[0]).sum()])
    seconds = seconds[~seconds.index.duplicated()]
    rows = []
    for name, arm in arms.items():
        if f"train@{name}" in seconds.index:
            making = (
                float(seconds.reindex(_makers(arm.partner, partial)).sum())
                if arm.uses_partner
                else 0.0
            )
            own = float(seconds[f"train@{name}"])
            rows.append(
                {"arm": name, "making": making, "training": own, "together": making + own}
                | dict(accuracy[name])
            )
    return rows


def _makers(partner: str, partial: Mapping[str, PartialSet]) -> list[str]:
    kind, _, name = partner.partition("/")
    if kind != "partial":
        return list(MAKERS[kind])
    return [stage for piece, stage in PIECES.items() if piece not in partial[name].without] + [
        f"partial@{name}"
    ]


def key_numbers(
    accuracy: Mapping[str, Any], audit: Mapping[str, Any], privacy: Mapping[str, Any]
) -> dict[str, Any]:
    """The numbers by which runs are compared, in readable names: the content of
    metrics/summary.json.
    """
    synthetic = audit["measures"]["synthetic"]
    names = (
        "coverage",
        "precision",
        "two_sample",
        "frechet",
        "vendi",
        "near_copy_rate",
        "real_equivalent",
    )
    arm = accuracy["verdict"]["arm"] or "real"
    other_looks = {name: rows[arm]["value"] for name, rows in accuracy["ood"]["accuracy"].items()}
    leaks = {
        arm: {
            name: (attacks["lira_online"][name] or {}).get("value")
            for name in ("auc", "tpr_at_1_in_100")
        }
        for arm, attacks in privacy["arms"].items()
    }
    numbers = {
        "gain": {name: accuracy["verdict"][name] for name in ("arm", "points", "low", "high")},
        "accuracy": {arm: row["top1"] for arm, row in accuracy["accuracy"].items()},
        "ood": other_looks
        | {
            "mean_corruption_error": (accuracy["ood"]["mean_corruption_error"].get(arm) or {}).get(
                "value"
            )
        },
        "synthetic": {name: (synthetic[name] or {}).get("value") for name in names},
    }
    return numbers | ({"membership": leaks} if leaks else {})

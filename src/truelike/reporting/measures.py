"""The audit's and the ledger's numbers as rows of tables, with the words that explain them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pandas as pd

from truelike.config import Arm

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
    "content": ("content", "share of real images that new real images cover and these do not, points", 1, 100),
    "appearance": ("appearance", "low-level difference beyond that of new real images, standard deviations", 2, 1),
    "label": (
        "label",
        "images that are another class to a probe of the real ones, beyond new real ones, points",
        1,
        100,
    ),
    "two_sample": ("all together", "images told apart from the training ones, beyond new real ones, points", 1, 100),
}
ATTACKS = {
    "lira_online": "LiRA, online",
    "lira_offline": "LiRA, offline",
    "threshold": "confidence threshold",
}
MAKERS = {  # stages whose images an arm's partner is
    "synthetic": ("caption", "embed", "invert", "adapt", "synthesize", "select"),
    "naive": ("naive",),
    "extra": (),
}


def recovery(arms: Mapping[str, Arm], comparisons: pd.DataFrame) -> pd.DataFrame:
    """Steps from the first arm that learns from synthetic images alone, over the others in order, to the arm `real`.

    What each recovers: rows of arm, against, points, low, high out of `comparisons`; none without such an arm.
    """
    alone = [
        name
        for name, arm in arms.items()
        if arm.partner != "extra" and all(phase.on == "partner" for phase in arm.phases)
    ]
    known = {
        (row["arm"], row["against"]): (row["points"], row["low"], row["high"]) for row in comparisons.to_dict("records")
    }
    rows = []
    for against, arm in pairwise([*alone, "real"]):
        if (arm, against) in known:
            value, low, high = known[arm, against]
        else:
            value, high, low = (-number for number in known[against, arm])
        rows.append((arm, against, value, low, high))
    return pd.DataFrame(rows, columns=["arm", "against", "points", "low", "high"])


def arm_costs(
    costs: pd.DataFrame, arms: Mapping[str, Arm], accuracy: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """What each arm took, in seconds: making its partner's images, training, and both, beside its accuracy."""
    seconds = costs.assign(stage=costs["stage"].str.split("@").str[0]).groupby("stage")["seconds"].sum()
    training = costs.set_index("stage")["seconds"]
    rows = []
    for name, arm in arms.items():
        if f"train@{name}" in training.index:
            uses = any(phase.on != "real" for phase in arm.phases)
            making = float(seconds.reindex(MAKERS[arm.partner]).sum()) if uses else 0.0
            own = float(training[f"train@{name}"])
            rows.append(
                {"arm": name, "making": making, "training": own, "together": making + own} | dict(accuracy[name])
            )
    return rows


def key_numbers(accuracy: Mapping[str, Any], audit: Mapping[str, Any], privacy: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers by which runs are compared, in readable names: the content of metrics/summary.json."""
    synthetic = audit["measures"]["synthetic"]
    names = ("coverage", "precision", "two_sample", "frechet", "vendi", "near_copy_rate", "real_equivalent")
    arm = accuracy["verdict"]["arm"] or "real"
    other_looks = {name: rows[arm]["value"] for name, rows in accuracy["ood"]["accuracy"].items()}
    leaks = {
        arm: {name: (attacks["lira_online"][name] or {}).get("value") for name in ("auc", "tpr_at_1_in_100")}
        for arm, attacks in privacy["arms"].items()
    }
    numbers = {
        "gain": {name: accuracy["verdict"][name] for name in ("arm", "points", "low", "high")},
        "accuracy": {arm: row["top1"] for arm, row in accuracy["accuracy"].items()},
        "ood": other_looks
        | {"mean_corruption_error": (accuracy["ood"]["mean_corruption_error"].get(arm) or {}).get("value")},
        "synthetic": {name: (synthetic[name] or {}).get("value") for name in names},
    }
    return numbers | ({"membership": leaks} if leaks else {})

"""The result in short: reports/summary.md, which the README quotes, and metrics/summary.json."""

from collections.abc import Mapping
from typing import Any

from truelike.reporting.arms import describe_arm
from truelike.reporting.rendering import render_template
from truelike.training.settings import Arm

KEY_MEASURES = (
    "coverage",
    "precision",
    "two_sample",
    "frechet",
    "vendi",
    "near_copy_rate",
    "real_equivalent",
)


def accuracy_summary(metrics: Mapping[str, Any], arms: Mapping[str, Arm], confidence: float) -> str:
    """The verdict and the accuracy of every arm, in markdown; `metrics` is the content of
    metrics/accuracy.json.
    """
    return render_template(
        "summary.md.j2",
        verdict=metrics["verdict"],
        accuracy=metrics["accuracy"],
        differences=metrics["difference_to_real"],
        descriptions={arm: describe_arm(settings) for arm, settings in arms.items()},
        level=f"{100 * confidence:g} %",
    )


def key_numbers(
    accuracy: Mapping[str, Any], audit: Mapping[str, Any], privacy: Mapping[str, Any]
) -> dict[str, Any]:
    """The numbers by which runs are compared, in readable names: the content of
    metrics/summary.json.
    """
    synthetic = audit["measures"]["synthetic"]
    arm = accuracy["verdict"]["arm"] or "real"
    ood = {name: rows[arm]["value"] for name, rows in accuracy["ood"]["accuracy"].items()}
    error = accuracy["ood"]["mean_corruption_error"].get(arm) or {}
    numbers = {
        "gain": {name: accuracy["verdict"][name] for name in ("arm", "points", "low", "high")},
        "accuracy": {arm: row["top1"] for arm, row in accuracy["accuracy"].items()},
        "ood": {"arm": arm} | ood | {"mean_corruption_error": error.get("value")},
        "synthetic": {name: (synthetic[name] or {}).get("value") for name in KEY_MEASURES},
    }
    leaks = {
        arm: {
            name: (attacks["lira_online"][name] or {}).get("value")
            for name in ("auc", "tpr_at_1_in_100")
        }
        for arm, attacks in privacy["arms"].items()
    }
    return numbers | ({"membership": leaks} if leaks else {})

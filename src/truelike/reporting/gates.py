"""Limits that a synthetic set must keep: `audit.gates`."""

from collections.abc import Mapping
from typing import Any

from truelike.audit.settings import Gates


def breaches(
    gates: Gates, accuracy: Mapping[str, Any], audit: Mapping[str, Any], privacy: Mapping[str, Any]
) -> list[str]:
    """A line per breached gate; the others are the contents of metrics/accuracy.json, audit.json
    and privacy.json.

    A gate whose number could not be measured is breached.
    """
    synthetic = audit["measures"]["synthetic"]
    near_copy_rate, coverage = (
        (synthetic[name] or {}).get("value") for name in ("near_copy_rate", "coverage")
    )
    checks = (
        ("max_near_copy_rate", "near-copy rate of the synthetic set", near_copy_rate, 1),
        ("max_tpr", "largest TPR of membership inference at 1 % FPR", largest_tpr(privacy), 1),
        ("min_coverage", "coverage of the real images by the synthetic set", coverage, -1),
        (
            "min_gain",
            "gain of the verdict's arm over real, in points,",
            accuracy["verdict"]["points"],
            -1,
        ),
    )
    lines = []
    for gate, words, value, sign in checks:
        limit = getattr(gates, gate)
        if limit is not None and (value is None or sign * (value - limit) > 0):
            figure = "could not be measured" if value is None else f"is {value:g}"
            lines.append(f"audit.gates.{gate}: the {words} {figure}, the limit is {limit:g}")
    return lines


def largest_tpr(privacy: Mapping[str, Any]) -> float | None:
    """The largest TPR at 1 % FPR of any attack on an arm other than `real`, which has no synthetic
    images to blame.

    None where there is no such arm, or one has too few images.
    """
    rates = [
        attack["tpr_at_1_in_100"]
        for arm, attacks in privacy["arms"].items()
        if arm != "real"
        for attack in attacks.values()
    ]
    return max(rate["value"] for rate in rates) if rates and all(rates) else None

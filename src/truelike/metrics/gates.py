"""Limits that a synthetic set must keep: `audit.gates`."""

from collections.abc import Mapping
from typing import Any

from truelike.config import Gates


def breaches(gates: Gates, accuracy: Mapping[str, Any], audit: Mapping[str, Any]) -> list[str]:
    """A line per breached gate; `accuracy` and `audit` are the contents of metrics/accuracy.json and audit.json.

    A gate whose number could not be measured is breached.
    """
    synthetic = audit["measures"]["synthetic"]
    found = {name: (synthetic[name] or {}).get("value") for name in ("near_copy_rate", "coverage")}
    checks = (
        ("max_near_copy_rate", "near-copy rate of the synthetic set", found["near_copy_rate"], 1),
        ("min_coverage", "coverage of the real images by the synthetic set", found["coverage"], -1),
        ("min_gain", "gain of the verdict's arm over real, in points,", accuracy["verdict"]["points"], -1),
    )
    lines = []
    for gate, words, value, sign in checks:
        limit = getattr(gates, gate)
        if limit is not None and (value is None or sign * (value - limit) > 0):
            figure = "could not be measured" if value is None else f"is {value:g}"
            lines.append(f"audit.gates.{gate}: the {words} {figure}, the limit is {limit:g}")
    return lines

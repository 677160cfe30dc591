"""The result as a markdown table: reports/summary.md, which the README quotes."""

from collections.abc import Mapping
from typing import Any

from truelike.config import Params
from truelike.reporting.style import points
from truelike.reporting.words import describe_arm


def accuracy_summary(metrics: Mapping[str, Any], params: Params) -> str:
    """The verdict and the accuracy of every arm, in markdown; `metrics` is the content of
    metrics/accuracy.json.
    """
    level = f"{100 * params.evaluate.confidence:g} %"
    lines = [
        f"**{metrics['verdict']['sentence']}**",
        "",
        f"| arm | trained on | test accuracy, % ({level} interval) | difference to `real`, points "
        "|",
        "|---|---|---|---|",
    ]
    for arm, row in metrics["accuracy"].items():
        difference = metrics["difference_to_real"].get(arm)
        change = (
            ""
            if difference is None or arm == "real"
            else _interval(difference, "points", signed=True)
        )
        words = describe_arm(params.train.arms[arm])
        lines.append(f"| `{arm}` | {words} | {_interval(row, 'top1', signed=False)} | {change} |")
    return "\n".join(lines) + "\n"


def _interval(row: Mapping[str, float], value: str, signed: bool) -> str:
    middle, low, high = (
        points(row[name]) if signed else f"{row[name]:.1f}" for name in (value, "low", "high")
    )
    return f"{middle} ({low} to {high})"

"""One page that puts DVC experiments side by side: settings that differ, accuracy by arm, other
measures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from ruamel.yaml import YAML

from truelike.reporting.figures import runs_figure
from truelike.reporting.measures import MEASURES
from truelike.reporting.rendering import flatten, render_template
from truelike.reporting.style import to_svg
from truelike.runtime.errors import TruelikeError

WORKSPACE = "workspace"
WORTH = {"real_equivalent": ("worth in real images per class ↑", 1, 1)}
FILES = ("params.yaml", "metrics/accuracy.json", "metrics/audit.json")


@dataclass(frozen=True)
class Run:
    """A finished run of the pipeline: its settings, flat, and the contents of metrics/accuracy.json
    and audit.json.
    """

    name: str
    settings: Mapping[str, str]
    accuracy: Mapping[str, Any]
    audit: Mapping[str, Any]


def read_run(name: str) -> Run:
    """Read a DVC experiment, a Git revision, or the working tree; raises TruelikeError if it has no
    result.
    """
    params, accuracy, audit = (_read(name, file) for file in FILES)
    settings = YAML(typ="safe", pure=True).load(params)
    return Run(name, dict(flatten(settings)), json.loads(accuracy), json.loads(audit))


def _read(name: str, file: str) -> str:
    import dvc.api
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        return (
            Path(file).read_text(encoding="utf-8")
            if name == WORKSPACE
            else dvc.api.read(file, rev=name)
        )
    except (DvcException, SCMError, OSError) as error:
        raise TruelikeError(
            f"{name}: {file} cannot be read ({error}); `dvc exp show` lists the experiments, "
            "of which only finished ones can be compared"
        ) from None


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, each with its value in every run; a dash
    where there is none.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: [run.settings.get(name, "–") for run in runs] for name in names}
    return {name: row for name, row in values.items() if len(set(row)) > 1}


def compare_page(runs: Sequence[Run]) -> str:
    """Render the page, HTML as one string that needs nothing else."""
    arms = dict.fromkeys(arm for run in runs for arm in run.accuracy["accuracy"])
    measures = [run.audit["measures"]["synthetic"] for run in runs]
    ood = [run.accuracy.get("ood", {"accuracy": {}, "mean_corruption_error": {}}) for run in runs]
    best = [run.accuracy["verdict"]["arm"] or "real" for run in runs]
    context = {
        "runs": runs,
        "settings": differing(runs),
        "arms": {arm: [run.accuracy["accuracy"].get(arm) for run in runs] for arm in arms},
        "gains": {
            arm: [run.accuracy["difference_to_real"].get(arm) for run in runs]
            for arm in arms
            if arm != "real"
        },
        "measures": {
            words: [(own.get(name), digits, factor) for own in measures]
            for name, (words, digits, factor) in (MEASURES | WORTH).items()
        },
        "ood": {
            name: [
                own["accuracy"].get(name, {}).get(arm) for own, arm in zip(ood, best, strict=True)
            ]
            for name in dict.fromkeys(name for own in ood for name in own["accuracy"])
        }
        | {
            "mean corruption error ↓": [
                own["mean_corruption_error"].get(arm) for own, arm in zip(ood, best, strict=True)
            ]
        },
        "figure": Markup(to_svg(runs_figure({run.name: run.accuracy["accuracy"] for run in runs}))),
    }
    return render_template("compare.html.j2", **context)

"""One page that puts DVC experiments side by side: settings that differ, accuracy by arm, paired
differences, pictures, other measures, and draws of the data pooled.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from ruamel.yaml import YAML

from truelike.evaluation.random_effects import crossed_mean
from truelike.evaluation.verdict import REFERENCE, Predictions, hits, read_predictions
from truelike.paths import ARMS, METRICS, REPORTS
from truelike.reporting.figures import draws_figure, runs_figure
from truelike.reporting.measures import MEASURES
from truelike.reporting.pooling import pool_draws
from truelike.reporting.rendering import flatten, render_template
from truelike.reporting.style import to_svg
from truelike.runtime.errors import TruelikeError

WORKSPACE = "workspace"
WORTH = {"real_equivalent": ("worth in real images per class ↑", 1, 1)}
FILES = (Path("params.yaml"), METRICS / "accuracy.json", METRICS / "audit.json")


@dataclass(frozen=True)
class Run:
    """A finished run of the pipeline: its settings, flat, the contents of metrics/accuracy.json and
    audit.json, and where DVC has them the picture sheet (PNG) and each arm's test predictions.
    """

    name: str
    settings: Mapping[str, str]
    accuracy: Mapping[str, Any]
    audit: Mapping[str, Any]
    pictures: bytes | None = None
    predictions: Mapping[str, Predictions] = field(default_factory=dict)


def read_run(name: str) -> Run:
    """Read a DVC experiment, a Git revision, or the working tree; raises TruelikeError if it has no
    result.
    """
    try:
        params, accuracy, audit = (_read(name, file).decode() for file in FILES)
    except OSError as error:
        raise TruelikeError(
            f"{name}: {error.filename} cannot be read ({error.strerror}); `dvc exp show` lists the "
            "experiments, of which only finished ones can be compared"
        ) from None
    metrics = json.loads(accuracy)
    settings = YAML(typ="safe", pure=True).load(params)
    predictions = {}
    try:
        pictures = _read(name, REPORTS / "pictures.png")
        for arm in metrics["accuracy"]:
            file = io.BytesIO(_read(name, ARMS / arm / "predictions.parquet"))
            predictions[arm] = read_predictions(pd.read_parquet(file), "test")
    except OSError:  # not in DVC's cache
        pictures, predictions = None, {}
    return Run(name, dict(flatten(settings)), metrics, json.loads(audit), pictures, predictions)


def _read(name: str, file: Path) -> bytes:
    """A file's content at a revision; raises OSError with its name if it cannot be read."""
    import dvc.api
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        if name == WORKSPACE:
            return file.read_bytes()
        return dvc.api.read(file.as_posix(), rev=name, mode="rb")
    except (DvcException, SCMError, OSError) as error:
        raise OSError(0, str(error), str(file)) from None


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
    arm = common_arm(runs)
    pools = pool_draws(runs)
    accuracies = {run.name: run.accuracy["accuracy"] for run in runs}
    return render_template(
        "compare.html.j2",
        runs=runs,
        settings=differing(runs),
        arms={name: [run.accuracy["accuracy"].get(name) for run in runs] for name in arms},
        gains={
            name: [run.accuracy["difference_to_real"].get(name) for run in runs]
            for name in arms
            if name != REFERENCE
        },
        changes={name: [paired_change(run, runs[0], name) for run in runs[1:]] for name in arms},
        measures={
            title: [(row.get(name), digits, factor) for row in measures]
            for name, (title, digits, factor) in (MEASURES | WORTH).items()
        },
        arm=arm,
        ood=_ood_rows(runs, arm),
        pictures=[_picture_uri(run.pictures) for run in runs],
        pools=pools,
        figure=Markup(to_svg(runs_figure(accuracies))),
        pool_figures=[Markup(to_svg(draws_figure(pool))) for pool in pools],
    )


def common_arm(runs: Sequence[Run]) -> str:
    """The arm by which all runs are compared: the first run's verdict's, `real` where not all have
    it.
    """
    arm = runs[0].accuracy["verdict"]["arm"]
    return arm if all(arm in run.accuracy["accuracy"] for run in runs) else REFERENCE


def paired_change(run: Run, first: Run, arm: str) -> dict[str, float] | None:
    """The difference of an arm's test accuracy in two runs, paired by seed and image: points, low
    and high.

    None without predictions of both, or where their seeds or test images are not the same.
    """
    later, earlier = run.predictions.get(arm), first.predictions.get(arm)
    if later is None or earlier is None:
        return None
    if later.seeds != earlier.seeds or set(later.keys) != set(earlier.keys):
        return None
    places = {key: place for place, key in enumerate(later.keys)}
    order = [places[key] for key in earlier.keys]
    change = crossed_mean(hits(later)[:, order] - hits(earlier))
    ends = change.interval(float(first.settings.get("evaluate.confidence", 0.95)))
    return {"points": change.value, "low": ends.low, "high": ends.high}


def _ood_rows(runs: Sequence[Run], arm: str) -> dict[str, list[dict[str, float] | None]]:
    """Accuracy of one arm on each other set in every run, and its mean corruption error."""
    none: dict[str, Any] = {"accuracy": {}, "mean_corruption_error": {}}
    tables = [run.accuracy.get("ood", none) for run in runs]
    rows = {
        name: [table["accuracy"].get(name, {}).get(arm) for table in tables]
        for name in dict.fromkeys(name for table in tables for name in table["accuracy"])
    }
    errors = [table["mean_corruption_error"].get(arm) for table in tables]
    return rows | ({"mean corruption error ↓": errors} if any(errors) else {})


def _picture_uri(png: bytes | None) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode() if png else ""

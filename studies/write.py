"""Writes docs/results.md from the DVC experiments of the studies that were run:
``python -m studies.write``.
"""

import json
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import dvc.api
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies import DRAWS, TRAINING_SEEDS, Measure, Study, experiment_name, load_studies
from studies.figures import scale_figure, shots_figure
from truelike.config import load_params
from truelike.evaluation.intervals import Interval
from truelike.evaluation.verdict import REFERENCE
from truelike.reporting.pooling import t_interval
from truelike.reporting.style import to_png
from truelike.runtime.errors import TruelikeError

PAGE = Path("docs/results.md")
FIGURES: dict[
    str, tuple[Callable[..., Figure], tuple[str, ...]]
] = {  # of which studies' accuracies
    "real-count": (scale_figure, ("scale", "real-count")),
    "shots": (shots_figure, ("shots",)),
}
CONFIDENCE = 0.95
fold = partial(wrap, width=120, break_on_hyphens=False, break_long_words=False)
HEAD = (
    "What the demo's task says about the papers' findings: {shots} real images per class of "
    "Fashion-MNIST, drawn anew in each of {draws} draws, the embedded models, {steps} optimizer "
    "steps for every arm, {seeds} seeds of the training in each draw, 5,000 test images, the "
    "same in all draws; a row of fewer draws says so. In %: of `real` the mean over draws with "
    "its 95 % t interval, of the others the mean with the difference to `real` of the same draw "
    "in points and the t interval of that; in a row with *to*, with the difference to the same "
    "arm in the row that it names. The intervals are over draws of the real images, not over "
    "test images. Coverage is of the real training images by the synthetic ones. Settings are "
    "those of params.yaml, chosen on validation images, but for what a row names. Written by "
    "`python -m studies.write` from the DVC experiments of "
    "[studies/plan.yaml](../studies/plan.yaml), which `python -m studies.run` makes."
)
MULTIPLICITY = (
    "The page shows {count} differences, each at 95 % by itself: were all of them zero, about "
    "{expected} of their intervals would leave zero out by chance."
)


class Result(NamedTuple):
    """An experiment's metrics/accuracy.json and metrics/audit.json, and the commit that it started
    from.
    """

    accuracy: Mapping[str, Any]
    audit: Mapping[str, Any]
    commit: str


Draws = Mapping[int, Result]  # of a run, by draw


def value(result: Result, measure: Measure, arm: str) -> float | None:
    """What an arm reached, in percent; None for an arm that the run does not have."""
    if arm not in result.accuracy["accuracy"]:
        return None
    accuracy, classes = result.accuracy["accuracy"][arm], result.accuracy["classes"][arm]
    found: dict[Measure, float] = {
        "accuracy": accuracy["top1"],
        "validation accuracy": accuracy["validation"],
        "macro F1": classes["macro_f1"],
        "recall of the worst class": classes["worst_class"]["recall"],
    }
    return found[measure]


def values(draws: Draws, measure: Measure, arm: str) -> dict[int, float]:
    """What an arm reached in each draw that has it."""
    reached = {draw: value(result, measure, arm) for draw, result in draws.items()}
    return {draw: number for draw, number in reached.items() if number is not None}


def mean(draws: Draws, measure: Measure, arm: str) -> Interval:
    """The mean over draws of what an arm reached, with its t interval."""
    return t_interval(list(values(draws, measure, arm).values()), CONFIDENCE)


def gain(draws: Draws, against: Draws | None, measure: Measure, arm: str) -> Interval:
    """The mean over draws of an arm's difference in points, with its t interval: to the same arm of
    `against`, or to `real` of its own run.
    """
    own = values(draws, measure, arm)
    base = values(against, measure, arm) if against else values(draws, measure, REFERENCE)
    return t_interval([own[draw] - base[draw] for draw in own.keys() & base.keys()], CONFIDENCE)


@cache
def read(experiment: str) -> Result | None:
    """The newest experiment of a name; None without one."""
    listed = [
        "git",
        "for-each-ref",
        "--sort=-creatordate",
        "--format=%(refname)",
        f"refs/exps/*/*/{experiment}",
    ]
    refs = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    if not refs:
        return None
    accuracy, audit = (
        json.loads(dvc.api.read(f"metrics/{name}.json", rev=refs[0]))
        for name in ("accuracy", "audit")
    )
    _, _, *commit, _ = refs[0].split("/")
    return Result(accuracy, audit, "".join(commit))


def results(name: str, study: Study) -> dict[str, Draws]:
    """Those of a study's runs that were made with two draws or more."""
    found: dict[str, Draws] = {}
    for run in study.runs:
        made = {draw: read(experiment_name(name, run, draw)) for draw in DRAWS}
        draws = {draw: result for draw, result in made.items() if result}
        if len(draws) > 1:
            found[run] = draws
    return found


def origin(name: str, found: Mapping[str, Draws]) -> str:
    """The commit that a study's experiments started from. Raises TruelikeError if there are
    several.
    """
    commits = sorted({result.commit for draws in found.values() for result in draws.values()})
    if len(commits) > 1:
        raise TruelikeError(
            f"study {name}: its experiments started from {len(commits)} commits "
            f"({', '.join(commits)}), so their settings and code may differ: remove the older ones "
            "with `dvc exp remove`, or run them again"
        )
    return commits[0]


def cell(draws: Draws, against: Draws | None, measure: Measure, arm: str) -> str:
    """An arm's mean with the difference to `against`, None for the arm `real`; of `real` without
    `against` with its own interval.
    """
    if not values(draws, measure, arm):
        return ""
    reached = mean(draws, measure, arm)
    if arm == REFERENCE and not against:
        return f"{reached.value:.1f} [{reached.low:.1f}, {reached.high:.1f}]"
    more = gain(draws, against, measure, arm)
    return f"{reached.value:.1f}, {more.value:+.1f} [{more.low:+.1f}, {more.high:+.1f}]"


def coverage(draws: Draws) -> str:
    """The mean coverage of the real training images; empty without synthetic ones."""
    found = [result.audit["measures"]["synthetic"]["coverage"] for result in draws.values()]
    return f"{np.mean([one['value'] for one in found]):.2f}" if all(found) else ""


def table(study: Study, found: Mapping[str, Draws], measure: Measure) -> Iterator[str]:
    """The lines of a study's table: runs against arms and the coverage, the longer of both
    downwards.
    """
    rows = [["", *(f"`{arm}`" for arm in study.arms), "coverage"]]
    for run, draws in found.items():
        base = study.against.get(run, "")
        against = found.get(base)
        title = f"{run}, to *{base}*" if against else run
        title += f" ({len(draws)} draws)" if len(draws) < len(DRAWS) else ""
        cells = [cell(draws, against, measure, arm) for arm in study.arms]
        rows.append([title, *cells, coverage(draws)])
    if len(study.runs) < len(study.arms):
        rows = [list(column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if not number:
            yield "|---" * len(row) + "|"


def accuracies(name: str) -> pd.DataFrame:
    """The accuracies of a study as rows of run, arm, top1, low, high."""
    study = load_studies()[name]
    rows = []
    for run, draws in results(name, study).items():
        for arm in study.arms:
            reached = mean(draws, "accuracy", arm)
            rows.append((run, arm, reached.value, reached.low, reached.high))
    return pd.DataFrame(rows, columns=["run", "arm", "top1", "low", "high"])


def figure(name: str) -> Figure | None:
    """The figure of a study of FIGURES; None while one of the studies that it shows has no run."""
    draw, studies = FIGURES[name]
    drawn = [accuracies(study) for study in studies]
    return draw(*drawn) if all(map(len, drawn)) else None


def differences(study: Study, found: Mapping[str, Draws]) -> int:
    """How many differences a study's tables show."""
    return len(study.measures) * sum(
        bool(values(draws, "accuracy", arm))
        and (arm != REFERENCE or study.against.get(run) in found)
        for run, draws in found.items()
        for arm in study.arms
    )


def page(figures: Collection[str]) -> str:
    """The whole page, with the figures of these studies; studies without any run are named as not
    run. Raises TruelikeError where a study's experiments started from several commits.
    """
    params = load_params()
    numbers = {"shots": params.data.shots, "steps": params.train.steps}
    head = HEAD.format(**numbers, draws=len(DRAWS), seeds=len(TRAINING_SEEDS))
    lines, count, waiting = list[str](), 0, list[str]()
    for name, study in load_studies().items():
        found = results(name, study)
        if not found:
            waiting.append(f"`{name}`")
            continue
        commit = origin(name, found)
        count += differences(study, found)
        lines += [f"## {study.title}", *fold(study.text), ""]
        lines += [f"![{study.title}](images/{name}.png)", ""] if name in figures else []
        for measure in study.measures:
            lines += [f"In % {measure}:", ""] if len(study.measures) > 1 else []
            lines += [*table(study, found, measure), ""]
        lines += [*fold(study.finding), ""] if study.finding else []
        missing = [run for run in study.runs if run not in found]
        missed = f" Not run: {'; '.join(missing)}." if missing else ""
        lines += [*fold(f"`{name}`, from commit {commit[:10]}.{missed}"), ""]
    if waiting:
        lines += ["## Not run yet", *fold(f"With the present models: {', '.join(waiting)}.")]
    chance = MULTIPLICITY.format(count=count, expected=round((1 - CONFIDENCE) * count))
    return "\n".join(["# Results", "", *fold(head), "", *fold(chance), "", *lines]).rstrip() + "\n"


if __name__ == "__main__":
    drawn = {name: made for name in FIGURES if (made := figure(name))}
    for name, made in drawn.items():
        (PAGE.parent / "images" / f"{name}.png").write_bytes(to_png(made))
    PAGE.write_text(page(drawn), encoding="utf-8")

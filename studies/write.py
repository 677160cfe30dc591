"""Writes docs/results.md from the DVC experiments of the studies that were run:
``python -m studies.write``.
"""

import json
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import dvc.api
import pandas as pd
from matplotlib.figure import Figure

from studies import Study, experiment_name, load_studies
from studies.figures import scale_figure, shots_figure
from truelike.config import load_params
from truelike.evaluation.settings import Evaluate
from truelike.evaluation.verdict import REFERENCE, arm_scores, compare_arms, read_predictions
from truelike.reporting.style import to_png

PAGE = Path("docs/results.md")
FIGURES: dict[
    str, tuple[Callable[..., Figure], tuple[str, ...]]
] = {  # of which studies' accuracies
    "real-count": (scale_figure, ("scale", "real-count")),
    "shots": (shots_figure, ("shots",)),
}
fold = partial(wrap, width=120, break_on_hyphens=False, break_long_words=False)
HEAD = (
    "What the demo's task says about the papers' findings: {shots} real images per class of "
    "Fashion-MNIST, the embedded models, {steps} optimizer steps for every arm, {seeds} "
    "seeds, 5,000 test images. Test accuracy in %: of `real` with its 95 % interval over "
    "seeds and test images, of the others with the difference to `real` in points and the "
    "interval of that (paired); in a row with *to*, with the difference to the same arm in "
    "the row that it names. Coverage is of the real training images by the synthetic ones. "
    "Settings are those of params.yaml, chosen on validation images, but for what a row "
    "names. Written by `python -m studies.write` from the DVC experiments of "
    "[studies/plan.yaml](../studies/plan.yaml), which `python -m studies.run` makes."
)


@dataclass(frozen=True)
class Result:
    """An experiment's contents of metrics/accuracy.json and audit.json, and how to read the
    predictions of an arm.
    """

    accuracy: dict[str, Any]
    audit: dict[str, Any]
    predictions: Callable[[str], pd.DataFrame]


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

    @cache
    def predictions(arm: str) -> pd.DataFrame:
        with dvc.api.open(
            f"outputs/train/{arm}/predictions.parquet", rev=refs[0], mode="rb"
        ) as file:
            return pd.read_parquet(file)

    accuracy, audit = (
        json.loads(dvc.api.read(f"metrics/{name}.json", rev=refs[0]))
        for name in ("accuracy", "audit")
    )
    return Result(accuracy, audit, predictions)


def difference(result: Result, against: Result, arm: str, settings: Evaluate) -> dict[str, float]:
    """Of the test accuracy of an arm in two runs, in points, with its interval over the same seeds
    and images.
    """
    both = {
        name: read_predictions(of.predictions(arm), "test")
        for name, of in ((REFERENCE, against), (arm, result))
    }
    found = compare_arms(arm_scores(both), [(arm, REFERENCE)], settings.confidence).iloc[0]
    return {name: float(found[name]) for name in ("points", "low", "high")}


def cell(result: Result, against: Result | None, arm: str, settings: Evaluate) -> str:
    """An arm's accuracy with the difference to `against`, None for the arm `real`; of `real` with
    its own interval.
    """
    if arm not in result.accuracy["accuracy"]:
        return ""
    found = result.accuracy["accuracy"][arm]
    if arm == REFERENCE:
        return f"{found['top1']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    gain = (
        difference(result, against, arm, settings)
        if against
        else result.accuracy["difference_to_real"][arm]
    )
    return f"{found['top1']:.1f}, {gain['points']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def table(study: Study, found: Mapping[str, Result], settings: Evaluate) -> Iterator[str]:
    """The lines of a study's table: runs against arms and the coverage, the longer of both
    downwards.
    """
    rows = [["", *(f"`{arm}`" for arm in study.arms), "coverage"]]
    for run, result in found.items():
        base = study.against.get(run, "")
        against = found.get(base)
        title = f"{run}, to *{base}*" if against else run
        coverage = result.audit["measures"]["synthetic"]["coverage"]
        shown = "" if coverage is None else f"{coverage['value']:.2f}"
        rows.append([title, *(cell(result, against, arm, settings) for arm in study.arms), shown])
    if len(study.runs) < len(study.arms):
        rows = [list(column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if not number:
            yield "|---" * len(row) + "|"


def results(name: str, study: Study) -> dict[str, Result]:
    """Those of a study's runs that were made."""
    found = {run: read(experiment_name(name, run)) for run in study.runs}
    return {run: result for run, result in found.items() if result}


def accuracies(name: str) -> pd.DataFrame:
    """The accuracies of a study as rows of run, arm, top1, low, high."""
    rows = [
        {"run": run, "arm": arm} | accuracy
        for run, result in results(name, load_studies()[name]).items()
        for arm, accuracy in result.accuracy["accuracy"].items()
    ]
    return pd.DataFrame(rows)


def figure(name: str) -> Figure | None:
    """The figure of a study of FIGURES; None while one of the studies that it shows has no run."""
    draw, studies = FIGURES[name]
    shown = [accuracies(study) for study in studies]
    return draw(*shown) if all(map(len, shown)) else None


def page(figures: Collection[str]) -> str:
    """The whole page, with the figures of these studies; studies without any run are named as not
    run.
    """
    params = load_params()
    train = params.train
    head = HEAD.format(shots=params.data.shots, steps=train.steps, seeds=len(train.seeds))
    lines = ["# Results", "", *fold(head), ""]
    for name, study in load_studies().items():
        found = results(name, study)
        lines += [f"## {study.title}", *fold(study.text), ""]
        lines += [f"![{study.title}](images/{name}.png)", ""] if name in figures else []
        lines += [*table(study, found, params.evaluate), ""] if found else ["Not run yet.", ""]
        lines += [*fold(study.finding), ""] if study.finding else []
        missing = [run for run in study.runs if run not in found]
        if found and missing:
            lines += [f"Not run: {'; '.join(missing)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    drawn = {name: shown for name in FIGURES if (shown := figure(name))}
    for name, shown in drawn.items():
        (PAGE.parent / "images" / f"{name}.png").write_bytes(to_png(shown))
    PAGE.write_text(page(drawn), encoding="utf-8")

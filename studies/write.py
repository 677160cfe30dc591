"""Writes docs/results.md from the DVC experiments of the studies that were run: ``python -m studies.write``."""

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import dvc.api

from studies import Study, experiment_name, load_studies
from truelike.config import load_params

PAGE = Path("docs/results.md")
fold = partial(wrap, width=120, break_on_hyphens=False, break_long_words=False)
HEAD = """# Results

What the demo's task says about the papers' findings: {shots} real images per class of Fashion-MNIST, the embedded
models, {steps} optimizer steps for every arm, {seeds} seeds, 5,000 test images. Test accuracy in %: of `real` with its
95 % interval over seeds and test images, of the others with the difference to `real` in points and the interval of that
(paired). Coverage is of the real training images by the synthetic ones. Settings are those of params.yaml, chosen on
validation images, but for what a row names. Written by `python -m studies.write` from the DVC experiments of
[studies/plan.yaml](../studies/plan.yaml), which `python -m studies.run` makes.
"""


def read(experiment: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The contents of metrics/accuracy.json and audit.json of the newest experiment of a name; None without one."""
    listed = ["git", "for-each-ref", "--sort=-creatordate", "--format=%(refname)", f"refs/exps/*/*/{experiment}"]
    refs = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    if not refs:
        return None
    accuracy, audit = (json.loads(dvc.api.read(f"metrics/{name}.json", rev=refs[0])) for name in ("accuracy", "audit"))
    return accuracy, audit


def cell(accuracy: dict[str, Any], arm: str) -> str:
    """An arm's accuracy with the difference to `real` and its interval; of `real` itself with its own interval."""
    if arm not in accuracy["accuracy"]:
        return ""
    found = accuracy["accuracy"][arm]
    if arm == "real":
        return f"{found['top1']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    gain = accuracy["difference_to_real"][arm]
    return f"{found['top1']:.1f}, {gain['points']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def table(study: Study, found: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    """The lines of a study's table: runs against arms and the coverage, the longer of both downwards."""
    rows = [["", *(f"`{arm}`" for arm in study.arms), "coverage"]]
    for run, (accuracy, audit) in found.items():
        coverage = audit["measures"]["synthetic"]["coverage"]
        shown = "" if coverage is None else f"{coverage['value']:.2f}"
        rows.append([run, *(cell(accuracy, arm) for arm in study.arms), shown])
    if len(study.runs) < len(study.arms):
        rows = [list(column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if not number:
            yield "|---" * len(row) + "|"


def page() -> str:
    """The whole page; studies without any run are named as not run."""
    params = load_params()
    lines = [HEAD.format(shots=params.data.shots, steps=params.train.steps, seeds=len(params.train.seeds))]
    for name, study in load_studies().items():
        results = {run: read(experiment_name(name, run)) for run in study.runs}
        found = {run: result for run, result in results.items() if result}
        lines += [f"## {study.title}", *fold(study.text), ""]
        lines += [*table(study, found), ""] if found else ["Not run yet.", ""]
        lines += [*fold(study.finding), ""] if study.finding else []
        missing = [run for run in study.runs if run not in found]
        if found and missing:
            lines += [f"Not run: {'; '.join(missing)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

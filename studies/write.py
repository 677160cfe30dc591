"""Writes what the DVC experiments of the studies reached into studies/results.csv, and
docs/results.md from that: ``python -m studies.write``.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from textwrap import wrap

import pandas as pd
from matplotlib.figure import Figure

from studies import DRAWS, TRAINING_SEEDS, Measure, Study, load_studies
from studies.figures import scale_figure, shots_figure
from studies.results import TABLE, collect, load_results
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
    "`python -m studies.write` from [studies/results.csv](../studies/results.csv), which has every "
    "draw; `python -m studies.run` makes the runs of [studies/plan.yaml](../studies/plan.yaml). A "
    "section whose study has no row there is of runs from before the table."
)
DIFFERENCE = re.compile(r", [+-][\d.]+ \[")  # as `cell` writes it
MULTIPLICITY = (
    "The page shows {count} differences, each at 95 % by itself: were all of them zero, about "
    "{expected} of their intervals would leave zero out by chance."
)


def reached(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """What the arms of a run reached, in percent: draws against arms."""
    return rows.pivot(index="draw", columns="arm", values=measure)


def mean(rows: pd.DataFrame, measure: Measure, arm: str) -> Interval:
    """The mean over draws of what an arm reached, with its t interval."""
    return t_interval(reached(rows, measure)[arm].dropna().tolist(), CONFIDENCE)


def gain(rows: pd.DataFrame, against: pd.DataFrame | None, measure: Measure, arm: str) -> Interval:
    """The mean over draws of an arm's difference in points, with its t interval: to the same arm of
    the run `against`, or to `real` of its own run.
    """
    own = reached(rows, measure)
    base = own[REFERENCE] if against is None else reached(against, measure)[arm]
    return t_interval((own[arm] - base).dropna().tolist(), CONFIDENCE)


def runs_of(results: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """The rows of those of a study's runs that were made with two draws or more, by run."""
    own = results[results["study"] == name]
    runs = {run: own[own["run"] == run] for run in load_studies()[name].runs}
    return {run: rows for run, rows in runs.items() if rows["draw"].nunique() > 1}


def origin(name: str, runs: Mapping[str, pd.DataFrame]) -> str:
    """The commit that a study's experiments started from. Raises TruelikeError if there are
    several.
    """
    commits = sorted({commit for rows in runs.values() for commit in rows["commit"]})
    if len(commits) > 1:
        raise TruelikeError(
            f"study {name}: its experiments started from {len(commits)} commits "
            f"({', '.join(commits)}), so their settings and code may differ: remove the rows of "
            "the older ones from studies/results.csv, and run them again"
        )
    return commits[0]


def cell(rows: pd.DataFrame, against: pd.DataFrame | None, measure: Measure, arm: str) -> str:
    """An arm's mean with the difference to `against`, None for the arm `real`; of `real` without
    `against` with its own interval; empty for an arm that the run does not have.
    """
    if arm not in set(rows["arm"]):
        return ""
    own = mean(rows, measure, arm)
    if arm == REFERENCE and against is None:
        return f"{own.value:.1f} [{own.low:.1f}, {own.high:.1f}]"
    more = gain(rows, against, measure, arm)
    return f"{own.value:.1f}, {more.value:+.1f} [{more.low:+.1f}, {more.high:+.1f}]"


def coverage(rows: pd.DataFrame) -> str:
    """The mean coverage of the real training images; empty without synthetic ones."""
    average = rows["coverage"].mean(skipna=False)
    return "" if pd.isna(average) else f"{average:.2f}"


def table(study: Study, runs: Mapping[str, pd.DataFrame], measure: Measure) -> Iterator[str]:
    """The lines of a study's table: runs against arms, and the coverage if there is an arm beside
    `real`, the longer of both downwards.
    """
    lines = [["", *(f"`{arm}`" for arm in study.arms), "coverage"]]
    for run, rows in runs.items():
        base = study.against.get(run, "")
        against = runs.get(base)
        title = run if against is None else f"{run}, to *{base}*"
        draws = rows["draw"].nunique()
        title += f" ({draws} draws)" if draws < len(DRAWS) else ""
        cells = [cell(rows, against, measure, arm) for arm in study.arms]
        lines.append([title, *cells, coverage(rows)])
    if study.arms == (REFERENCE,):
        lines = [line[:-1] for line in lines]
    if len(study.runs) < len(study.arms):
        lines = [list(column) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        yield f"| {' | '.join(line)} |"
        if not number:
            yield "|---" * len(line) + "|"


def accuracies(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """The accuracies of a study as rows of run, arm, top1, low, high."""
    rows = []
    for run, found in runs_of(results, name).items():
        for arm in load_studies()[name].arms:
            if arm in set(found["arm"]):
                own = mean(found, "accuracy", arm)
                rows.append((run, arm, own.value, own.low, own.high))
    return pd.DataFrame(rows, columns=["run", "arm", "top1", "low", "high"])


def figure(results: pd.DataFrame, name: str) -> Figure | None:
    """The figure of a study of FIGURES; None while one of the studies that it shows has no run."""
    draw, studies = FIGURES[name]
    drawn = [accuracies(results, study) for study in studies]
    return draw(*drawn) if all(map(len, drawn)) else None


def sections(page: str) -> dict[str, str]:
    """The text of each section of a page by its title."""
    parts = [part.partition("\n") for part in page.split("\n## ")[1:]]
    return {title: text.rstrip() for title, _, text in parts}


def contrast(
    runs: Mapping[str, pd.DataFrame], first: tuple[str, str], second: tuple[str, str]
) -> str:
    """The mean accuracy of a run's arm less that of another run's, in points, with its t interval
    over the draws of both.
    """
    own, base = (reached(runs[run], "accuracy")[arm] for run, arm in (first, second))
    more = t_interval((own - base).dropna().tolist(), CONFIDENCE)
    run, arm, other_run, other_arm = *first, *second
    return (
        f"- `{arm}` ({run}) to `{other_arm}` ({other_run}), "
        f"{more.value:+.1f} [{more.low:+.1f}, {more.high:+.1f}]"
    )


def section(
    name: str, study: Study, runs: Mapping[str, pd.DataFrame], figures: Collection[str]
) -> str:
    """What the page says of a study below its title."""
    lines = [*fold(study.text), ""]
    lines += [f"![{study.title}](images/{name}.png)", ""] if name in figures else []
    for measure in study.measures:
        lines += [f"In % {measure}:", ""] if len(study.measures) > 1 else []
        lines += [*table(study, runs, measure), ""]
    contrasts = [
        contrast(runs, *pair) for pair in study.contrasts if {pair[0][0], pair[1][0]} <= set(runs)
    ]
    lines += ["Differences in accuracy:", "", *contrasts, ""] if contrasts else []
    lines += [*fold(study.finding), ""] if study.finding else []
    missing = [run for run in study.runs if run not in runs]
    missed = f" Not run: {'; '.join(missing)}." if missing else ""
    lines += fold(f"`{name}`, from commit {origin(name, runs)}.{missed}")
    return "\n".join(lines)


def page(results: pd.DataFrame, figures: Collection[str], before: str) -> str:
    """The whole page, with the figures of these studies. A study without results keeps the section
    of the page `before`, and one without either is named as not run. Raises TruelikeError where a
    study's experiments started from several commits.
    """
    params = load_params()
    numbers = {"shots": params.data.shots, "steps": params.train.steps}
    head = HEAD.format(**numbers, draws=len(DRAWS), seeds=len(TRAINING_SEEDS))
    kept, shown, waiting = sections(before), list[str](), list[str]()
    for name, study in load_studies().items():
        if runs := runs_of(results, name):
            shown.append(f"## {study.title}\n{section(name, study, runs, figures)}")
        elif study.title in kept:
            shown.append(f"## {study.title}\n{kept[study.title]}")
        else:
            waiting.append(f"`{name}`")
    if waiting:
        text = fold(f"With the present models: {', '.join(waiting)}.")
        shown.append("\n".join(["## Not run yet", *text]))
    count = len(DIFFERENCE.findall("".join(shown)))
    chance = MULTIPLICITY.format(count=count, expected=round((1 - CONFIDENCE) * count))
    intro = ["\n".join(fold(text)) for text in (head, chance)]
    return "\n\n".join(["# Results", *intro, *shown]) + "\n"


if __name__ == "__main__":
    found = collect(load_results())
    found.to_csv(TABLE, index=False)
    drawn = {name: made for name in FIGURES if (made := figure(found, name))}
    for name, made in drawn.items():
        (PAGE.parent / "images" / f"{name}.png").write_bytes(to_png(made))
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page(found, drawn, before), encoding="utf-8")

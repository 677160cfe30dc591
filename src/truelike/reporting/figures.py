"""The report's figures, every interval drawn."""

import itertools
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from truelike.reporting.pooling import Pool
from truelike.reporting.style import (
    LINES,
    LONGEST,
    MARKERS,
    MARKS,
    PALETTE,
    ROW,
    STYLE,
    WIDTH,
    colour_of,
    draw_interval,
    legend_above,
    named_rows,
    points,
    settle,
    short,
)

SHOWN_CONFUSION = 2  # percent


def accuracy_figure(
    accuracy: Mapping[str, Mapping[str, float]], partners: Mapping[str, str], confidence: float
) -> Figure:
    """Test accuracy (percent) of every arm with its interval at the level `confidence`, a line at
    the arm `real`.

    `accuracy` maps an arm to ``top1``, ``low`` and ``high``; `partners` maps an arm to its partner
    set, for its colour.
    """
    labels = [
        f"{row['top1']:.1f}  ({row['low']:.1f} to {row['high']:.1f})" for row in accuracy.values()
    ]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(list(accuracy), labels)
        for y, (arm, row) in enumerate(accuracy.items()):
            draw_interval(axes, y, row["top1"], row["low"], row["high"], colour_of(arm, partners))
        axes.axvline(
            accuracy["real"]["top1"], color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3))
        )
        axes.set_xlabel(f"accuracy on real test images (%), {100 * confidence:g} % interval")
        settle(figure)
    return figure


def runs_figure(accuracies: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Test accuracy (percent) of every arm in several runs, with intervals: by run and arm top1,
    low and high.
    """
    arms = list(dict.fromkeys(arm for accuracy in accuracies.values() for arm in accuracy))
    colours = [PALETTE[name] for name in ("real", "synthetic", "naive")]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(arms, [], legend=True)
        figure.set_size_inches(WIDTH, 1.1 + 0.14 * len(arms) * (1 + len(accuracies)))
        for number, (name, accuracy) in enumerate(accuracies.items()):
            y = np.array([arms.index(arm) for arm in accuracy]) + 0.7 * (
                (number + 0.5) / len(accuracies) - 0.5
            )
            rows, colour = list(accuracy.values()), colours[number % len(colours)]
            axes.hlines(
                y,
                [r["low"] for r in rows],
                [r["high"] for r in rows],
                color=colour,
                linewidth=1.6,
                alpha=0.5,
            )
            axes.plot(
                [r["top1"] for r in rows],
                y,
                MARKS[number % len(MARKS)],
                color=colour,
                mfc="none",
                markersize=5,
            )
            axes.lines[-1].set_label(short(name, LONGEST))
        axes.set_xlabel("accuracy on real test images (%), with intervals")
        legend_above(axes)
        settle(figure)
    return figure


def draws_figure(pool: Pool) -> Figure:
    """Difference to `real` (percentage points) of every arm over draws of the data: a point per
    draw, the mean with its t interval, a line at zero.
    """
    labels = [
        f"{points(gain.mean.value)}  ({points(gain.mean.low)} to {points(gain.mean.high)})"
        for gain in pool.gains.values()
    ]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(list(pool.gains), labels)
        for y, gain in enumerate(pool.gains.values()):
            mean = gain.mean
            draw_interval(axes, y, mean.value, mean.low, mean.high, PALETTE["synthetic"])
            heights = np.full(len(gain.points), y + 0.28)
            axes.plot(gain.points, heights, "o", color=PALETTE["real"], mfc="none", markersize=4)
        axes.axvline(0, color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        level = f"{100 * pool.confidence:g} % t interval over draws"
        axes.set_xlabel(f"difference to real (percentage points), {level}")
        settle(figure)
    return figure


def difference_figure(
    differences: Mapping[str, Mapping[str, float]], partners: Mapping[str, str], confidence: float
) -> Figure:
    """Difference of every arm to the arm `real` (percentage points) with its interval, a line at
    zero.
    """
    labels = [
        f"{points(row['points'])}  ({points(row['low'])} to {points(row['high'])})"
        for row in differences.values()
    ]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(list(differences), labels)
        for y, (arm, row) in enumerate(differences.items()):
            draw_interval(axes, y, row["points"], row["low"], row["high"], colour_of(arm, partners))
        axes.axvline(0, color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(f"difference to real (percentage points), {100 * confidence:g} % interval")
        settle(figure)
    return figure


def class_figure(per_class: pd.DataFrame, metric: str, label: str) -> Figure:
    """A measure (0 to 1) per class of each set with its 95 % interval, the axis named `label`.

    `per_class` has the columns set, class_name, metric, value, low, high.
    """
    table = per_class[per_class["metric"] == metric].set_index(["set", "class_name"])
    names = per_class["class_name"].drop_duplicates().tolist()
    present = [
        kind
        for kind in ("real", "naive", "synthetic")
        if kind in table.index.get_level_values("set")
    ]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(names, [""] * len(names), legend=True)
        for offset, kind in zip((-0.22, 0, 0.22), present, strict=False):
            rows, y = table.loc[kind].loc[names], np.arange(len(names)) + offset
            axes.hlines(
                y, rows["low"], rows["high"], color=PALETTE[kind], linewidth=1.4, alpha=0.55
            )
            fill = "none" if kind == "real" else PALETTE[kind]
            axes.plot(
                rows["value"],
                y,
                MARKERS[kind],
                color=PALETTE[kind],
                mfc=fill,
                markersize=5,
                label=kind,
            )
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(f"{label}, 95 % interval")
        legend_above(axes)
        settle(figure)
    return figure


def waterfall_figure(
    accuracy: Mapping[str, Mapping[str, float]],
    steps: pd.DataFrame,
    partners: Mapping[str, str],
    confidence: float,
) -> Figure:
    """Accuracy (percent) from the first arm to the last: a bar per step from `against` to `arm`,
    with its interval.

    `steps` has the columns arm, against, closes, points, low, high, each `against` the arm of the
    row before.
    """
    arms = [steps["against"].iloc[0], *steps["arm"]]
    closed = ["", *steps["closes"]]
    names = [
        arm if gap in ("", arm) else f"{gap} ({arm})" for arm, gap in zip(arms, closed, strict=True)
    ]
    labels = [f"{accuracy[arms[0]]['top1']:.1f} %"]
    rows = steps.to_dict("records")
    labels += [
        f"{points(row['points'])}  ({points(row['low'])} to {points(row['high'])})" for row in rows
    ]
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(names, labels)
        first = accuracy[arms[0]]
        draw_interval(
            axes, 0, first["top1"], first["low"], first["high"], colour_of(arms[0], partners)
        )
        for y, row in enumerate(rows, start=1):
            start, colour = accuracy[row["against"]]["top1"], colour_of(row["arm"], partners)
            axes.barh(y, row["points"], left=start, height=0.55, color=colour, alpha=0.35)
            ends = [start + row["low"], start + row["high"]]
            axes.plot(ends, [y, y], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot([start, start], [y - 1, y + 0.28], color=PALETTE["muted"], linewidth=0.8)
        axes.set_xlabel(
            f"accuracy on real test images (%), steps with {100 * confidence:g} % interval"
        )
        settle(figure)
    return figure


def severity_figure(ood: pd.DataFrame, partners: Mapping[str, str], confidence: float) -> Figure:
    """Accuracy (percent) of every arm on corrupted images against their severity, the mean of all
    corruptions.

    `ood` has the columns arm, set, severity, value, low, high; severity 0 are the same images
    uncorrupted.
    """
    rows = ood[(ood["set"] == "corrupted") & ood["severity"].notna()]
    arms = rows["arm"].drop_duplicates().tolist()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6))
        axes = figure.add_subplot()
        for number, arm in enumerate(arms):
            line, colour = rows[rows["arm"] == arm], colour_of(arm, partners)
            x = line["severity"].astype(float) + 0.09 * (number - (len(arms) - 1) / 2)
            axes.vlines(x, line["low"], line["high"], color=colour, linewidth=1.6, alpha=0.4)
            form = MARKS[number % len(MARKS)] + LINES[number % len(LINES)]
            label = short(arm, LONGEST)
            axes.plot(
                x,
                line["value"],
                form,
                color=colour,
                linewidth=1.2,
                mfc="none",
                markersize=5,
                label=label,
            )
        axes.set_xlabel(f"severity of the corruption (0: none), {100 * confidence:g} % intervals")
        axes.set_ylabel("accuracy (%)")
        axes.grid(visible=True, axis="y")
        legend_above(axes, 4)
        settle(figure)
    return figure


def confusion_figure(confusion: pd.DataFrame) -> Figure:
    """Which classes are taken for which: rows of class_name, predicted, count, drawn as percent of
    each class.
    """
    names = confusion["class_name"].drop_duplicates().tolist()
    counts = confusion.pivot_table(
        index="class_name", columns="predicted", values="count", sort=False
    )
    share = (100 * counts.div(counts.sum(axis=1), axis=0)).loc[names, names].to_numpy()
    with mpl.rc_context(STYLE):
        figure, axes = named_rows(names, [""] * len(names))
        figure.set_size_inches(WIDTH, 1.5 + ROW * len(names))
        for y, x in zip(*np.nonzero(share >= SHOWN_CONFUSION), strict=True):
            colour = PALETTE["real" if x == y else "naive"]
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, color=colour, alpha=share[y, x] / 160, linewidth=0
                )
            )
            axes.text(x, y, f"{share[y, x]:.0f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(
            range(len(names)), [short(name, 14) for name in names], rotation=45, ha="right"
        )
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(visible=False)
        axes.set_xlabel(f"taken for (% of the class, from {SHOWN_CONFUSION} %)")
        settle(figure)
    return figure


def similarity_figure(near_copies: pd.DataFrame) -> Figure:
    """Distribution of each image's similarity to its nearest real training image: columns set and
    similarity.
    """
    values = near_copies["similarity"].to_numpy()
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-3), 33)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6))
        axes = figure.add_subplot()
        for kind, style in (("real", (0, (4, 2))), ("naive", (0, (1, 1))), ("synthetic", "-")):
            similarity = near_copies.loc[near_copies["set"] == kind, "similarity"]
            if len(similarity):
                share = 100 * np.histogram(similarity, edges)[0] / len(similarity)
                axes.stairs(
                    share, edges, color=PALETTE[kind], linestyle=style, linewidth=1.6, label=kind
                )
        axes.set_xlabel("cosine similarity to the nearest real training image")
        axes.set_ylabel("share of images (%)")
        axes.grid(visible=True, axis="y")
        legend_above(axes)
        settle(figure)
    return figure


def membership_figure(curves: pd.DataFrame, partners: Mapping[str, str]) -> Figure:
    """ROC curves of an attack on each arm, both axes logarithmic, with chance as a dotted line.

    `curves` has the columns arm, fpr, tpr; `partners` maps an arm to its partner set, for its
    colour.
    """
    smallest = float(min(curves.loc[curves[rate] > 0, rate].min() for rate in ("fpr", "tpr")))
    lines = itertools.cycle(["-", (0, (4, 2)), (0, (1, 1)), (0, (4, 2, 1, 2))])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2))
        axes = figure.add_subplot()
        for arm, rows in curves.groupby("arm", sort=False):
            axes.step(
                rows["fpr"].clip(smallest / 2),
                rows["tpr"].clip(smallest / 2),
                where="post",
                color=colour_of(str(arm), partners),
                linestyle=next(lines),
                linewidth=1.6,
                label=short(str(arm), LONGEST),
            )
        axes.plot(
            [smallest / 2, 1],
            [smallest / 2, 1],
            color=PALETTE["muted"],
            linewidth=1,
            linestyle=(0, (1, 3)),
        )
        axes.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("non-members called members (false positive rate)")
        axes.set_ylabel("members found (true positive rate)")
        axes.grid(visible=True, axis="both")
        legend_above(axes)
        settle(figure)
    return figure

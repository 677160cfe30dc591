"""The figures of docs/results.md, from rows of a study's accuracies: run, arm, top1, low, high, in
percent.
"""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from truelike.reporting.style import LINES, MARKS, PALETTE, STYLE, WIDTH, legend_above, settle

COLOURS = {"real": "real", "synthetic": "synthetic", "mixed": "naive", "bridged_pp": "partial"}


def scale_figure(scale: pd.DataFrame, real_count: pd.DataFrame) -> Figure:
    """Accuracy by number of images: of networks that saw only synthetic ones, and of those that saw
    only real ones.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2))
        axes = figure.add_subplot()
        for kind, rows in (("real", real_count), ("synthetic", scale)):
            own = rows[rows["arm"] == kind]
            _line(axes, own["run"].str.removesuffix("x").astype(int), own, kind)
        _finish(axes, "training images, times those of 1x", [1, 2, 4, 6, 10])
        axes.set_ylabel("accuracy on real test images (%)")
        legend_above(axes)
        settle(figure)
    return figure


def shots_figure(accuracy: pd.DataFrame) -> Figure:
    """Accuracy by real images per class of some arms, from scratch and from the pretrained network
    side by side.
    """
    names = accuracy["run"].str.split(", ", expand=True)
    rows = accuracy.assign(shots=names[0].astype(int), start=names[1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * WIDTH, 3.4))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, start, title in zip(
            panels, ("scratch", "pretrained"), ("from scratch", "pretrained"), strict=True
        ):
            for arm in COLOURS:
                own = rows[(rows["arm"] == arm) & (rows["start"] == start)].sort_values("shots")
                _line(axes, own["shots"], own, arm)
            _finish(
                axes,
                f"real images per class, {title}",
                sorted(set(rows.loc[rows["start"] == start, "shots"])),
            )
        panels[0].set_ylabel("accuracy on real test images (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(COLOURS))
        settle(figure)
    return figure


def _line(axes: Axes, x: pd.Series, rows: pd.DataFrame, arm: str) -> None:
    number = list(COLOURS).index(arm)
    colour = PALETTE[COLOURS[arm]]
    axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        x, rows["top1"], LINES[number], marker=MARKS[number], color=colour, mfc="none", label=arm
    )


def _finish(axes: Axes, label: str, ticks: list[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(label)
    axes.grid(axis="y")

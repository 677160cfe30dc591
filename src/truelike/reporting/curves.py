"""Curves of the report: accuracy by the number of images, with fitted laws, and losses by step."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from truelike.audit.scaling import FARTHEST, FEWEST_SIZES, fit_power_law
from truelike.reporting.style import (
    LINES,
    LONGEST,
    MARKERS,
    PALETTE,
    STYLE,
    WIDTH,
    colour_of,
    legend_above,
    settle,
    short,
)

MARGIN = 1.25  # factor of the axis beyond what can be estimated
SMOOTHING = 30  # points that a line is averaged to


def few_shot_figure(
    curves: pd.DataFrame, worth: Mapping[str, Mapping[str, float] | None]
) -> Figure:
    """Accuracy against the number of real images, its fitted law, and on it what each set is worth.

    Without a law and worths where the fit ends at its bounds: it then says nothing.

    `curves` are rows of set, images_per_class, accuracy, low, high (percent); `worth` has the
    value, low and high of the real images per class by set.
    """
    tops = curves.groupby("set")["accuracy"].last()
    sizes = curves.loc[curves["set"] == "real", "images_per_class"]
    left, right = sizes.min() / MARGIN, FARTHEST * sizes.max() * MARGIN
    stars = {kind: interval for kind, interval in worth.items() if interval}
    farthest = max([sizes.max(), *(interval["value"] for interval in stars.values())])
    with mpl.rc_context(STYLE):
        figure, axes = _curve_axes("real training images per class")
        is_fitted = _curve(axes, curves, "real", min(farthest, FARTHEST * sizes.max()))
        for kind, interval in stars.items():
            x, y, colour = interval["value"], tops[kind], PALETTE[kind]
            if is_fitted and left <= x <= right:
                low, high = (float(np.clip(interval[end], left, right)) for end in ("low", "high"))
                axes.hlines(y, low, high, color=colour, linewidth=2.4, alpha=0.5)
                axes.plot(
                    x, y, "*", color=colour, markersize=11, label=f"all {kind}: worth {x:.1f}"
                )
        axes.set_xlim(left, right)
        legend_above(axes)
        settle(figure)
    return figure


def scaling_figure(curves: pd.DataFrame) -> Figure:
    """Accuracy against the number of synthetic images, with fitted laws, and a line at that of all
    real images.
    """
    real = curves.loc[curves["set"] == "real", "accuracy"].iloc[-1]
    with mpl.rc_context(STYLE):
        figure, axes = _curve_axes("synthetic images per class")
        axes.axhline(
            real, color=PALETTE["real"], linewidth=1, linestyle=(0, (4, 3)), label="all real images"
        )
        for kind in ("naive", "synthetic"):
            _curve(axes, curves, kind, curves.loc[curves["set"] == kind, "images_per_class"].max())
        legend_above(axes)
        settle(figure)
    return figure


def _curve_axes(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.0))
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(f"{label}, 95 % intervals of the accuracy")
    axes.set_ylabel("accuracy of a linear probe (%)")
    axes.grid(visible=True, axis="y")
    return figure, axes


def _curve(axes: Axes, curves: pd.DataFrame, kind: str, farthest: float) -> bool:
    """Draw a set's accuracies with their intervals, and the power law fitted to three of them or
    more; False where there is none, or none within its bounds.
    """
    rows, colour = curves[curves["set"] == kind], PALETTE[kind]
    sizes, fill = rows["images_per_class"].to_numpy(), "none" if kind == "real" else colour
    axes.vlines(sizes, rows["low"], rows["high"], color=colour, linewidth=2.4, alpha=0.4)
    axes.plot(
        sizes, rows["accuracy"], MARKERS[kind], color=colour, mfc=fill, markersize=5, label=kind
    )
    if len(rows) < FEWEST_SIZES:
        return False
    law = fit_power_law(sizes.astype(float), rows["accuracy"].to_numpy())
    if law.at_bounds:
        return False
    x = np.geomspace(sizes[0], farthest, 60)
    dashes = "-" if kind == "synthetic" else (0, (4, 2))
    axes.plot(x, law.accuracy(x), color=colour, linewidth=1.2, linestyle=dashes)
    return True


def loss_figure(losses: pd.DataFrame, partners: Mapping[str, str]) -> Figure:
    """Loss against the optimizer step, a smoothed line per run: columns run, step, loss.

    `partners` maps an arm to its partner set, for its colour.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8))
        axes = figure.add_subplot()
        for number, (run, rows) in enumerate(losses.groupby("run", sort=False)):
            window = max(1, len(rows) // SMOOTHING)
            axes.plot(
                rows["step"],
                rows["loss"].rolling(window, min_periods=1).mean(),
                LINES[number % len(LINES)],
                color=colour_of(str(run), partners),
                linewidth=1.4,
                label=short(str(run), LONGEST),
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")
        axes.grid(visible=True, axis="y")
        legend_above(axes, 4)
        settle(figure)
    return figure

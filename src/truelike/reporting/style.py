"""What the figures have in common: one style, and colours that the colour-blind can tell apart.

On the page a figure is inline SVG whose colours are CSS variables, so that it follows the reader's
light or dark theme.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = {  # the sets also differ by marker
    "ink": "#1f2328",
    "muted": "#656d76",
    "line": "#d0d7de",
    "real": "#57606b",
    "naive": "#c2410c",
    "synthetic": "#0969c8",
    "partial": "#7a3e9d",
    "rounds": "#1a7f37",
}
MARKERS = {"real": "D", "naive": "s", "synthetic": "o"}
LINES, MARKS = (
    ("--", ":", "-", "-", "--", ":", "-"),
    "Dso^vPX",
)  # of arms or runs, which may share a colour
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.6,
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.color": PALETTE["line"],
    "ytick.labelcolor": PALETTE["ink"],
    "ytick.major.size": 0,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "truelike",
}
WIDTH = 5.6  # inches; narrow, so that its text stays readable on a phone
ROW = 0.32
LONGEST = 26  # characters of a row's name


def to_svg(figure: Figure) -> str:
    """Draw a figure as an ``<svg>`` element, the same text for the same figure, colours as CSS
    variables.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    head, body = svg[svg.index("<svg") :].split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    body = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL
    )  # would style the page
    body = re.sub(
        r' id="[a-zA-Z.]+\d?[a-z]*_\d+"', "", body
    )  # axes_1, line2d_1, ...: in every figure
    body = body.replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    for name, colour in PALETTE.items():
        body = body.replace(colour, f"var(--{name}, {colour})")
    return f"{head}>{body}"


def to_png(figure: Figure) -> bytes:
    """Draw a figure as PNG bytes on white, at twice the screen's resolution."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(
            buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def points(value: float, digits: int = 1) -> str:
    """A signed number with a true minus sign: ``+2.7``, ``−0.4``; no minus before a zero."""
    return f"{value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def named_rows(
    names: Sequence[str], labels: Sequence[str], legend: bool = False
) -> tuple[Figure, Axes]:
    """Axes with a named row per entry, the first on top, and a text at the right of each row."""
    figure = Figure(figsize=(WIDTH, 0.75 + 0.3 * legend + ROW * len(names)))
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), [short(name, LONGEST) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    for y, label in enumerate(labels):
        axes.annotate(label, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    return figure, axes


def short(name: str, length: int) -> str:
    """A name on one line, of at most `length` characters."""
    name = oneline(name)
    return name if len(name) <= length else name[: length - 1] + "…"


def oneline(text: str) -> str:
    """A text on one line: runs of white space and control characters become a space."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())


def settle(figure: Figure) -> None:
    """Fix the layout now: left to each drawing it moves a little with every one, and files would
    differ.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def draw_interval(axes: Axes, y: float, value: float, low: float, high: float, colour: str) -> None:
    """Draw an interval and its value at height `y`."""
    axes.plot([low, high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt", alpha=0.55)
    axes.plot([value], [y], color=colour, marker="o", markersize=6)


def legend_above(axes: Axes, columns: int = 3) -> None:
    """A legend above the axes, in so many columns."""
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        handletextpad=0.4,
        borderaxespad=0.2,
    )


def colour_of(arm: str, partners: Mapping[str, str]) -> str:
    """The colour of an arm: that of its partner set, grey without one."""
    return PALETTE.get(partners.get(arm, "real").partition("/")[0], PALETTE["real"])

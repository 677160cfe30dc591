"""The templates of pages and markdown files: their environment, and how numbers and settings are
written in them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from truelike.reporting.style import oneline, points

TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
HEAD = re.compile(r'<th scope="col"[^>]*>(.*?)</th>', re.DOTALL)
ROW = re.compile(r"<tr>(?:(?!</tr>|scope=\"col\").)*</tr>", re.DOTALL)
CELL = re.compile(r"<(t[dh])\b([^>]*)>")


def render_template(name: str, **context: Any) -> str:
    """Render ``templates/NAME``; in HTML every text that is no ``Markup`` is escaped.

    Filters: `points` (a signed number), `number` (digits), `p_value`, `duration` (seconds),
    `oneline` (text without line breaks).
    """
    environment = Environment(
        loader=PackageLoader("truelike.reporting"),
        autoescape=".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "points": points,
        "number": number,
        "p_value": p_value,
        "duration": duration,
        "oneline": oneline,
    }
    text = environment.get_template(name).render(context)
    return label_cells(text) if environment.autoescape else text


def label_cells(html: str) -> str:
    """Name each cell of a table's body after its column, for phones, where a row is a block."""

    def table(match: re.Match[str]) -> str:
        heads = [re.sub(r"<[^>]*>", "", head) for head in HEAD.findall(match[0])]
        return ROW.sub(lambda row: _label_row(row[0], heads), match[0])

    return TABLE.sub(table, html)


def _label_row(row: str, heads: Sequence[str]) -> str:
    names = iter(heads)
    return CELL.sub(
        lambda cell: (
            f'<td data-label="{name}"{cell[2]}>'
            if (name := next(names, "")) and cell[1] == "td"
            else cell[0]
        ),
        row,
    )


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (dotted name, text), text as it is and all else as JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus sign, none before a zero; a dash where there is no number."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """A p-value with four digits; below 0.0001 that it is."""
    return "<0.0001" if value < 0.0001 else number(value, 4)


def duration(seconds: float) -> str:
    """Seconds in words: ``2 h 05 min``, ``3 min 20 s``, ``4.2 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"

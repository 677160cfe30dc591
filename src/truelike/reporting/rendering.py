"""The templates of pages and markdown files: their environment, and how numbers and settings are
written in them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from truelike.reporting.style import oneline, points


def render_template(name: str, **context: Any) -> str:
    """Render ``templates/NAME``; in HTML every text that is no ``Markup`` is escaped.

    Filters: `points` (a signed number), `number` (digits), `duration` (seconds), `oneline` (text
    without line breaks).
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
        "duration": duration,
        "oneline": oneline,
    }
    return environment.get_template(name).render(context)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (dotted name, text), text as it is and all else as JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Seconds in words: ``2 h 05 min``, ``3 min 20 s``, ``4.2 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"

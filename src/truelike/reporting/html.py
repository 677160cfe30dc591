"""What the HTML pages have in common: one style sheet, escaping, and how numbers and settings are
written.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from truelike.reporting.style import points


def template_environment() -> Environment:
    """The pages' templates, with the filters `points` and `number`; what a user named is
    escaped.
    """
    environment = Environment(
        loader=PackageLoader("truelike.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "number": number}
    return environment


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (dotted name, text), text as it is and all else as JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus sign; a dash where there is none."""
    return (
        "–"
        if value is None or np.isnan(value)
        else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    )

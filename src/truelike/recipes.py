"""Merges a recipe, a YAML file with some of the parameters, into params.yaml without losing its
comments.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from truelike.config import PARAMS_FILE, parse_params
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import write_once
from truelike.runtime.yaml import read_yaml

RECIPES = Path("recipes")


class Change(NamedTuple):
    """A parameter that a recipe sets to another value."""

    name: str
    old: Any
    new: Any


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by its name in recipes/; raises TruelikeError that
    lists those.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml"))) or "none"
    raise TruelikeError(f"{name}: no such recipe; give a YAML file, or one of {RECIPES}/: {known}")


def use_recipe(recipe: Path, params: Path = Path(PARAMS_FILE)) -> list[Change]:
    """Set the recipe's parameters in the file `params` and return what changed.

    Sections merge, so parameters that the recipe does not name stay; lists are replaced, `{}`
    empties a section, and null takes an arm out. Raises TruelikeError, and changes nothing, if the
    result would not be valid.
    """
    for path in (recipe, params):
        if not isinstance(read_yaml(path), dict):
            raise TruelikeError(
                f"{path}: must hold sections of parameters such as `train:` with `  lr: 0.1` below"
            )
    yaml = _round_trip_yaml()
    settings = yaml.load(params.read_text(encoding="utf-8"))
    wanted = yaml.load(recipe.read_text(encoding="utf-8"))
    changes = list(_merge(settings, wanted, ""))
    parse_params(_plain(settings), f"{params} with {recipe}")
    if changes:
        write_once(params, lambda partial: yaml.dump(settings, partial))
    return changes


def _round_trip_yaml() -> YAML:
    """YAML that is written as it was read: comments, quotes, number formats, ``null`` and
    ``[{on: real}]``.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _merge(settings: Any, wanted: dict[str, Any], prefix: str) -> Iterator[Change]:
    for name, value in wanted.items():
        old = settings.get(name)
        if value and old and isinstance(value, dict) and isinstance(old, dict):
            yield from _merge(old, value, f"{prefix}{name}.")
        elif value is None and prefix == "train.arms.":
            if name in settings:
                del settings[name]
                yield Change(f"{prefix}{name}", old, None)
        elif name not in settings or old != value:
            settings[name] = value
            yield Change(f"{prefix}{name}", old, value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value

"""Puts recipes, YAML files with some of the parameters, on the shipped settings: `truelike use`.

params.yaml is ``recipes/default.yaml``, then the recipes that its line ``# Recipes in force: ...``
names, in that order, then the user's edits: whatever else the file says.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from truelike.config import PARAMS_FILE, Params, parse_params
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import write_once
from truelike.runtime.yaml import read_yaml

RECIPES = Path("recipes")
DEFAULT = RECIPES / "default.yaml"
IN_FORCE = re.compile(r"^# Recipes in force:(.*)\n", re.MULTILINE)

ParameterPath = tuple[str, ...]  # ("train", "lr"), or of an entry ("train", "arms", "mixed")


class Change(NamedTuple):
    """A parameter, or an entry such as an arm, before and after; None where it is not there."""

    name: str
    old: Any
    new: Any


class Outcome(NamedTuple):
    """What changed in params.yaml, which of the user's edits stay, which recipes are no longer in
    force, and which of these have no file any more, so that what they set counts as edits.
    """

    changes: list[Change]
    edits: list[Change]
    dropped: list[str]
    gone: list[str]


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by its name in recipes/; raises TruelikeError that
    lists those.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml"))) or "none"
    raise TruelikeError(f"{name}: no such recipe; give a YAML file, or one of {RECIPES}/: {known}")


def use_recipes(names: Sequence[str], params: Path = Path(PARAMS_FILE)) -> Outcome:
    """Write the shipped settings with these recipes and the user's edits to `params`.

    An edit stays unless one of the recipes names its parameter. Of a section only the parameters
    that a recipe names change. An arm, a set of `ood` or `partial`, or a definition is added or
    replaced whole, and null removes it. Raises TruelikeError, and changes nothing, if the result
    would not be valid.
    """
    current, before = _read(params), _read(DEFAULT)
    text, after = params.read_text(encoding="utf-8"), deepcopy(before)
    in_force, gone = _in_force(text), list[str]()
    for name in in_force:
        try:
            _merge(before, find_recipe(name))
        except TruelikeError:
            gone.append(name)
    named = {path for name in names for path in _merge(after, find_recipe(name))}
    edits = list(_edits(before, current, after, named))
    for path, _, value in edits:
        _set(after, path, value)
    _keep_comments(before, current, after)
    parse_params(_plain(after), f"{params} with {' '.join(names)}")
    old, new = _values(current), _values(after)
    changes = [
        Change(".".join(path), old.get(path), new.get(path))
        for path in {**new, **old}
        if old.get(path) != new.get(path)
    ]
    new_text = _with_recipes_in_force(_dump(after), names)
    if new_text != text:
        write_once(params, partial(Path.write_text, data=new_text, encoding="utf-8"))
    kept = [Change(".".join(path), *values) for path, *values in edits]
    return Outcome(changes, kept, [name for name in in_force if name not in names], gone)


def _read(path: Path) -> CommentedMap:
    settings = read_yaml(path, _round_trip_yaml())
    if not isinstance(settings, CommentedMap):
        raise TruelikeError(
            f"{path}: must hold sections of parameters such as `train:` with `  lr: 0.1` below"
        )
    return settings


def _dump(settings: CommentedMap) -> str:
    stream = StringIO()
    _round_trip_yaml().dump(settings, stream)
    return stream.getvalue()


def _in_force(text: str) -> list[str]:
    line = IN_FORCE.search(text)
    return shlex.split(line[1]) if line else []


def _with_recipes_in_force(text: str, names: Sequence[str]) -> str:
    line = f"# Recipes in force: {shlex.join(names)}\n"
    return IN_FORCE.sub(lambda _: line, text, count=1) if IN_FORCE.search(text) else line + text


def _merge(settings: CommentedMap, recipe: Path) -> list[ParameterPath]:
    """Set in `settings` what a recipe names; returns that."""
    wanted = list(_parameters(_read(recipe)))
    for path, value in wanted:
        if value is None and _is_entry(path) and path not in _values(settings):
            raise TruelikeError(
                f"{recipe}: {'.'.join(path)}: null removes an entry, but there is none of this name"
            )
        _set(settings, path, value)
    return [path for path, _ in wanted]


def _edits(
    before: CommentedMap, current: CommentedMap, after: CommentedMap, named: set[ParameterPath]
) -> Iterator[tuple[ParameterPath, Any, Any]]:
    """What the user changed after the recipes in force and no recipe of `after` names: path, value
    in `after`, the user's value.
    """
    old, own, new = _values(before), _values(current), _values(after)
    for path in {**own, **old}:
        value = own.get(path)
        is_edit = value != old.get(path) or (path in own) != (path in old)
        is_named = any(path[: len(name)] == name for name in named)
        is_lost = path not in own and not _is_entry(path)  # by an older version of the file
        if is_edit and not is_named and not is_lost and value != new.get(path):
            yield path, new.get(path), value


def _parameters(
    settings: Mapping, model: type[BaseModel] = Params, prefix: ParameterPath = ()
) -> Iterator[tuple[ParameterPath, Any]]:
    """The parameters and entries of nested sections by path; an empty section has none, empty
    entries are a value.
    """
    for name, value in settings.items():
        path = (*prefix, str(name))
        section = _section(model, path[-1])
        if section and (value is None or isinstance(value, dict)):
            yield from _parameters(value or {}, section, path)
        elif value and isinstance(value, dict) and _has_entries(model, path[-1]):
            yield from (((*path, str(entry)), item) for entry, item in value.items())
        else:
            yield path, value


def _values(settings: Mapping) -> dict[ParameterPath, Any]:
    """The parameters and entries by path; where there are no entries, there is nothing."""
    return {path: value for path, value in _parameters(settings) if value != {}}


def _set(settings: CommentedMap, path: ParameterPath, value: Any) -> None:
    *sections, name = path
    place = settings
    for section in sections:
        place = place.setdefault(section, CommentedMap())
    if value is None and _is_entry(path):
        place.pop(name, None)
    else:
        place[name] = value


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a section of `model`, None for another field or none."""
    field = model.model_fields.get(name)
    annotation: Any = field.annotation if field else None
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _has_entries(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is Mapping


def _is_entry(path: ParameterPath) -> bool:
    model: type[BaseModel] | None = Params
    for name in path[:-2]:
        model = model and _section(model, name)
    return model is not None and len(path) > 1 and _has_entries(model, path[-2])


def _keep_comments(before: CommentedMap, current: CommentedMap, after: CommentedMap) -> None:
    """Give `after` the comments that the user changed, where their parameters are still there."""
    if after.ca.comment != current.ca.comment:
        after.ca.comment = current.ca.comment
    for name in current.keys() & after.keys():
        own = current.ca.items.get(name)
        if _texts(own) != _texts(before.ca.items.get(name)):
            after.ca.items.pop(name, None)
            if own:
                after.ca.items[name] = own
        values = [settings.get(name) for settings in (before, current, after)]
        if all(isinstance(value, CommentedMap) for value in values):
            _keep_comments(*values)


def _texts(comments: Any) -> list[str]:
    """The comments of a parameter without their columns."""
    if comments is None:
        return []
    if isinstance(comments, list):
        return [text for item in comments for text in _texts(item)]
    return [comments.value]


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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value

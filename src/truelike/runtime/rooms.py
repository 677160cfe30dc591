"""The rooms of truelike that a module is made of: what dvc.yaml lists for a stage, and what the key
of a scratch folder covers.

A room is a package of ``truelike`` with all its files. ``truelike.runtime``, and the modules that
lie directly in ``truelike`` and put rooms together, are no rooms: they cannot change a byte of a
result.
"""

import ast
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
NO_ROOMS = {"runtime"}


def rooms_of(module: str | Path) -> list[str]:
    """The names of the rooms that the module in this file imports, directly or not, its own among
    them, sorted.

    Imports inside functions count. A module of ``truelike`` that is in no room is not followed.
    """
    files = _imported(Path(module).resolve())
    return sorted(
        {file.relative_to(LIBRARY).parts[0] for file in files if file.is_relative_to(LIBRARY)}
    )


@cache
def _imported(module: Path) -> frozenset[Path]:
    """The files of rooms that `module` imports, and `module` itself."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported_modules(file)
    return frozenset(seen)


def imported_modules(file: Path) -> list[Path]:
    """The files of rooms that the import statements of a Python file name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [path for name in names if (path := _file_in_a_room(name))]


def _file_in_a_room(name: str) -> Path | None:
    package, *parts = name.split(".")
    if package != "truelike" or len(parts) < 2 or parts[0] in NO_ROOMS:
        return None
    file = LIBRARY.joinpath(*parts).with_suffix(".py")
    return file if file.is_file() else None

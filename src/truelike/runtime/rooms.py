"""The rooms of truelike that a module is made of: what dvc.yaml lists for a stage, and what the
key of a scratch folder covers.

A room is a package of ``truelike`` with all its files. ``truelike.runtime``, and the modules that
lie directly in ``truelike`` and put rooms together, are no rooms: they cannot change a byte of a
result.
"""

import ast
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
NO_ROOMS = {LIBRARY, LIBRARY / "runtime"}


def rooms_of(module: str | Path) -> list[str]:
    """The names of the rooms that the module in this file imports, directly or not, sorted.

    Its own room is among them. Imports inside functions count. What a module outside of all rooms
    imports does not.
    """
    start = Path(module).resolve()
    files = {start} | modules_of(start, LIBRARY, frozenset(NO_ROOMS))
    in_rooms = [f for f in files if f.is_relative_to(LIBRARY) and f.parent not in NO_ROOMS]
    return sorted({file.relative_to(LIBRARY).parts[0] for file in in_rooms})


@cache
def modules_of(
    start: Path, package: Path, excluded: frozenset[Path] = frozenset()
) -> frozenset[Path]:
    """The files of `package` that the module `start` imports, directly or not.

    Files that lie directly in a directory of `excluded` are neither listed nor followed.
    """
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        for file in _imported(waiting.pop(), package):
            if file not in found and file.parent not in excluded:
                found.add(file)
                waiting.append(file)
    return frozenset(found)


def _imported(module: Path, package: Path) -> list[Path]:
    """The files of `package` that the import statements of a module name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    parts = [name.split(".") for name in names]
    files = [
        package.joinpath(*rest).with_suffix(".py")
        for name, *rest in parts
        if name == package.name and rest
    ]
    return [file for file in files if file.is_file()]

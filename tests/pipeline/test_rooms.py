"""The laws of the house, from the import statements: rooms in the order of docs/architecture.md,
each importing only earlier ones.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src" / "truelike"
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ORDER = re.findall(r"^\| `([a-z]+)/` \|", MAP, re.MULTILINE)
TOP = ("config", "recipes", "cli")  # put rooms together, so no room may import them
MODULES = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts): path
    for path in sorted(LIBRARY.rglob("*.py"))
}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, in functions too; of ``from a import b`` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not used here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of truelike that a file imports, as in MODULES."""
    names = {name.removeprefix("truelike.") for name in imported(path)}
    return names & MODULES.keys()


def literals(path: Path) -> Iterator[str]:
    """The strings of a file, each part of an f-string by itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_map_shows_every_room():
    rooms = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").is_file()}
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == rooms


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_earlier_rooms(room):
    allowed = {*ORDER[: ORDER.index(room) + 1], "paths"}
    for name, path in MODULES.items():
        if name.split(".")[0] == room:
            later = {other for other in own_imports(path) if other.split(".")[0] not in allowed}
            assert later == set(), path


def test_no_module_of_the_library_imports_stages():
    packages = {name: {o.split(".")[0] for o in imported(path)} for name, path in MODULES.items()}
    assert [name for name, others in packages.items() if "stages" in others] == []


def test_there_is_no_circle_of_modules():
    TopologicalSorter({name: own_imports(path) for name, path in MODULES.items()}).prepare()


def test_only_the_command_line_and_recipes_import_the_settings_of_all_rooms():
    importers = {name for name, path in MODULES.items() if "config" in own_imports(path)}
    assert importers <= set(TOP)


def test_paths_of_outputs_are_written_in_paths_alone():
    found = {
        name: [text for text in literals(path) if re.match(r"\W*outputs(/|$)", text)]
        for name, path in MODULES.items()
    }
    assert [name for name, paths in found.items() if paths] == ["paths"]

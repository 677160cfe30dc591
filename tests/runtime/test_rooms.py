"""Which rooms a module is made of, by its imports."""

from pathlib import Path

import pytest

from truelike.runtime.rooms import modules_of, rooms_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package of two rooms, one of them with a module that nobody imports."""
    files = {
        "house/kitchen/stove.py": "import house.cellar.wood\nfrom house import door\n",
        "house/cellar/wood.py": "def burn():\n    from house.cellar import coal\n",
        "house/cellar/coal.py": "import numpy\n",
        "house/cellar/wine.py": "",
        "house/door.py": "from house.attic import roof\n",
        "house/attic/roof.py": "",
        "cook.py": "from house.kitchen.stove import heat\nimport housekeeper\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(files: frozenset[Path], root: Path) -> set[str]:
    return {file.relative_to(root).as_posix() for file in files}


def test_imports_are_followed_also_inside_functions_and_no_others(house: Path) -> None:
    found = modules_of(house / "cook.py", house / "house")
    assert names(found, house / "house") == {
        "kitchen/stove.py",
        "cellar/wood.py",
        "cellar/coal.py",
        "door.py",
        "attic/roof.py",
    }


def test_excluded_directories_are_neither_listed_nor_followed(house: Path) -> None:
    found = modules_of(house / "cook.py", house / "house", frozenset({house / "house"}))
    assert names(found, house / "house") == {"kitchen/stove.py", "cellar/wood.py", "cellar/coal.py"}


def test_a_stage_is_made_of_the_rooms_below_it() -> None:
    assert rooms_of(ROOT / "stages" / "embed.py") == ["features", "imageset"]
    assert rooms_of(ROOT / "src/truelike/evaluation/intervals.py") == ["evaluation"]
    rooms = {path.parent.name for path in (ROOT / "src/truelike").glob("*/settings.py")}
    assert set(rooms_of(ROOT / "src/truelike/config.py")) == rooms - {"runtime"}

"""Every recipe applies to params.yaml, and every sweep that recipes and docs name has valid
settings.
"""

import copy
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import get_hydra_sweeps, to_hydra_overrides

from truelike.config import parse_params
from truelike.recipes import use_recipe
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PROFILES = ("fashion", "sd15", "sdxl")
PAGES = [*RECIPES, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SWEEPS = [
    pytest.param(page, line, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, line in enumerate(
        re.findall(r"dvc exp run [^\n`#]*-S [^\n`#]*", page.read_text(encoding="utf-8"))
    )
]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_can_be_taken_back(recipe: Path, params: Path) -> None:
    before = params.read_text()
    if recipe.stem not in PROFILES:
        use_recipe(ROOT / "recipes" / "sd15.yaml", params)
    use_recipe(recipe, params)
    assert use_recipe(recipe, params) == []
    use_recipe(ROOT / "recipes" / "fashion.yaml", params)
    spaces = re.compile(" +#")  # a longer value may have moved a comment
    assert spaces.sub(" #", params.read_text()) == spaces.sub(" #", before)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_profiles_choose_the_models_and_protocols_leave_them_alone(recipe: Path) -> None:
    settings = read_yaml(recipe)
    is_profile = recipe.stem in PROFILES
    assert ("models" in settings) == ("resolution" in settings.get("data", {})) == is_profile


def changed(settings: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The settings with what `dvc exp run -S` sets, as Hydra reads it."""
    result = copy.deepcopy(settings)
    for override in to_hydra_overrides(overrides):
        *sections, name = override.key_or_group.split(".")
        place = result
        for section in sections:
            place = place[section]
        place[name] = override.value()
    return result


@pytest.mark.parametrize(("page", "line"), SWEEPS)
def test_every_run_of_a_sweep_has_valid_settings(page: Path, line: str, params: Path) -> None:
    words = shlex.split(line)
    overrides = [words[position + 1] for position, word in enumerate(words) if word == "-S"]
    if page.suffix == ".yaml":
        use_recipe(page, params)
    settings = read_yaml(params)
    runs = [run["params"] for run in get_hydra_sweeps({"params": overrides})]
    assert len(runs) == 1 or "--queue" in words
    assert all(parse_params(changed(settings, run)) for run in runs)


@pytest.mark.parametrize(
    "pointer", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem
)
def test_hub_models_are_pinned_to_a_commit(pointer: Path) -> None:
    settings = read_yaml(pointer)
    assert "hub" not in settings or re.fullmatch(r"[0-9a-f]{40}", settings["revision"])

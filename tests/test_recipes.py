"""Recipes on the shipped settings, the user's edits, and the sweeps that recipes and docs name."""

import copy
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import get_hydra_sweeps, to_hydra_overrides

from truelike.config import load_params, parse_params
from truelike.recipes import use_recipes
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "recipes" / "default.yaml"
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path != SHIPPED)
PROFILES = (
    "fashion",
    "flux-dev",
    "flux-schnell",
    "flux2-klein",
    "lumina2",
    "qwen-image",
    "sana",
    "sd15",
    "sd35-medium",
    "sdxl",
    "sdxl-turbo",
    "z-image-turbo",
)
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
    return Path(shutil.copy(SHIPPED, tmp_path / "params.yaml"))


def edit(params: Path, *replacements: tuple[str, str]) -> None:
    text = params.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    params.write_text(text)


def recipe_file(params: Path, text: str) -> str:
    path = params.with_name("mine.yaml")
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_demo_comes_back_byte_for_byte_from_every_recipe(recipe: Path, params: Path) -> None:
    before = params.read_bytes()
    use_recipes(["sd15", recipe.stem], params)
    assert use_recipes(["fashion"], params).edits == []
    assert params.read_bytes() == before


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_profiles_choose_the_models_and_protocols_leave_them_alone(recipe: Path) -> None:
    settings = read_yaml(recipe)
    is_profile = recipe.stem in PROFILES
    chooses = "generator" in settings.get("models", {})
    assert chooses == ("resolution" in settings.get("data", {})) == is_profile
    assert is_profile or set(settings.get("models", {})) <= {"accelerator"}


def test_what_was_in_force_before_leaves_nothing_behind(params: Path) -> None:
    use_recipes(["bridged-transfer"], params)
    alone = params.read_bytes()
    assert use_recipes(["bridged-transfer"], params).changes == []
    use_recipes(["gaps", "real-fake", "sdxl"], params)
    use_recipes(["bridged-transfer"], params)
    assert params.read_bytes() == alone


def test_edits_stay_unless_a_recipe_names_the_parameter(params: Path) -> None:
    edit(
        params,
        ("source: data/fashion ", "source: my images "),
        ("  seeds: [0, 1, 2, 3, 4, 5]\n  arms", "  seeds: [7]\n  arms"),
        ("    mixed: {partner: synthetic, phases: [{on: real+partner}]}\n", ""),
        ("    more_real:", "    mine: {partner: naive, phases: [{on: partner}]}\n    more_real:"),
    )
    edited = load_params(params)
    outcome = use_recipes(["sd15", "gaps"], params)
    kept = {"data.source", "train.seeds", "train.arms.mixed", "train.arms.mine"}
    assert {name for name, *_ in outcome.edits} == kept
    found = load_params(params)
    assert (found.data.source, found.data.resolution) == ("my images", 512)
    assert found.train.seeds == (7,)
    assert {"mine", "content", "real"} < set(found.train.arms)
    assert "mixed" not in found.train.arms
    outcome = use_recipes(["fashion"], params)  # it names data.source
    assert {name for name, *_ in outcome.edits} == kept - {"data.source"}
    assert load_params(params) == edited.model_copy(update={"data": load_params(SHIPPED).data})
    use_recipes(["bridged-transfer"], params)  # it names train.seeds
    assert load_params(params).train.seeds == (0, 1, 2)


def test_an_edit_of_what_a_recipe_set_stays_as_an_edit(params: Path) -> None:
    use_recipes(["real-fake"], params)
    edit(params, ("strength: 0.75", "strength: 0.5"))
    assert use_recipes(["captions-are-prompts"], params).edits == []  # which names it
    assert load_params(params).synthesize.strength == 1.0
    use_recipes(["real-fake"], params)
    edit(params, ("lora_scale: 0.5", "lora_scale: 0.9"))
    (kept,) = use_recipes(["captions-are-prompts"], params).edits
    assert kept == ("synthesize.lora_scale", 1.0, 0.9)


def test_comments_of_the_user_stay(params: Path) -> None:
    edit(
        params,
        ("# The settings", "# my project\n# The settings"),
        ("\nembed:", "\n# vectors\nembed:"),
        ("  crop_scale: 0.6               # smallest area", "  crop_scale: 0.6  # mine: area"),
    )
    before = params.read_bytes()
    use_recipes(["sd15", "real-fake", "gaps"], params)
    text = params.read_text()
    assert text.startswith("# my project\n# The settings")
    assert "\n\n# vectors\nembed:\n" in text
    assert "# mine: area" in text
    use_recipes(["fashion"], params)
    assert params.read_bytes() == before


def test_an_empty_section_of_a_recipe_changes_nothing_and_empty_entries_remove_all(
    params: Path,
) -> None:
    use_recipes([recipe_file(params, "naive: {}\nembed:\npartial: {}\nood: {}\n")], params)
    shipped, found = load_params(SHIPPED), load_params(params)
    assert found == shipped.model_copy(update={"ood": {}})


def test_entries_are_added_or_replaced_whole_and_null_removes_them(params: Path) -> None:
    text = "train: {arms: {bridged_pp: null, real: {partner: naive, phases: [{on: real}]}}}"
    use_recipes([recipe_file(params, text)], params)
    arms = load_params(params).train.arms
    assert list(arms) == ["real", "naive", "synthetic", "mixed", "bridged", "more_real"]
    text = "train: {arms: {real: {partner: extra, selected: false, phases: [{on: real}]}}}"
    use_recipes([recipe_file(params, text)], params)
    text = "train: {arms: {real: {partner: extra, phases: [{on: real}]}}}"
    use_recipes([recipe_file(params, text)], params)
    assert load_params(params).train.arms["real"].selected
    before = params.read_bytes()
    with pytest.raises(TruelikeError, match=r"train\.arms\.mixd: null removes an entry, but"):
        use_recipes([recipe_file(params, "train: {arms: {mixd: null}}")], params)
    assert params.read_bytes() == before


def test_later_recipes_win(params: Path) -> None:
    use_recipes(["fast", "real-fake"], params)
    assert load_params(params).synthesize.steps == 30
    use_recipes(["real-fake", "fast"], params)
    assert load_params(params).synthesize.steps == 5


def test_what_a_lost_recipe_set_counts_as_edits(params: Path) -> None:
    name = recipe_file(params, "synthesize: {strength: 0.5}")
    use_recipes([name], params)
    Path(name).unlink()
    outcome = use_recipes(["sd15"], params)
    assert outcome.gone == [name]
    assert [edit.name for edit in outcome.edits] == ["synthesize.strength"]


def test_without_the_line_of_recipes_all_that_differs_counts_as_edits(params: Path) -> None:
    use_recipes(["fast"], params)
    edit(params, ("# Recipes in force: fast\n", ""))
    assert [edit.name for edit in use_recipes(["fashion"], params).edits] == ["synthesize.steps"]
    assert params.read_text().startswith("# Recipes in force: fashion\n")


def test_a_parameter_that_an_older_file_lacks_gets_its_shipped_value(params: Path) -> None:
    edit(params, ("  crop_scale: 0.6  ", "  # crop_scale: 0.6  "))
    with pytest.raises(TruelikeError, match=r"train\.crop_scale' is missing"):
        load_params(params)
    (change,) = use_recipes(["fashion"], params).changes
    assert change == ("train.crop_scale", None, 0.6)


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
        use_recipes([page.stem], params)
    settings = read_yaml(params)
    runs = [run["params"] for run in get_hydra_sweeps({"params": overrides})]
    assert len(runs) == 1 or "--queue" in words
    assert all(parse_params(changed(settings, run)) for run in runs)


@pytest.mark.parametrize(
    "pointer", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem
)
def test_hub_models_are_pinned_to_a_commit(pointer: Path) -> None:
    settings = read_yaml(pointer)
    if settings is None or "hub" not in settings:
        return
    unknown = settings["revision"] is None and "No commit is known" in pointer.read_text()
    assert unknown or re.fullmatch(r"[0-9a-f]{40}", settings["revision"])

"""dvc.yaml against the code: a stage lists just the code it imports, and no held-out image reaches
learning.
"""

import ast
from pathlib import Path

import pytest

from truelike.config import Models, Params, load_params
from truelike.runtime.rooms import rooms_of
from truelike.runtime.yaml import read_yaml
from truelike.training.settings import Optimization

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage.get("do", stage) for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items()
}
PARTNERS = ("synthetic", "naive", "extra", "partial/content")  # what an arm's partner may be
KEYS = {"train": "real", "ood": "catalogue", "partial": "content"}  # an entry of each foreach
CAPTIONED = ("outputs/real/train", "outputs/naive/0")  # what caption.images may be
LEARNING = (
    "caption",
    "embed",
    "invert",
    "adapt",
    "naive",
    "synthesize",
    "partial",
    "select",
    "halves",
    "shadow",
    "attack",
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_it_imports_and_no_other_code(stage):
    module = ROOT / "stages" / f"{stage}.py"
    rooms = [f"src/truelike/{room}" for room in rooms_of(module)]
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src", "stages"))]
    assert sorted(declared) == sorted([f"stages/{stage}.py", *rooms])


def upstream(stage: str, captioned: str) -> tuple[set[str], set[str]]:
    """The stages and the paths that a stage depends on, directly or not, when `captioned` is
    caption.images.
    """
    stages: set[str] = set()
    paths: set[str] = set()
    waiting = [stage]
    while waiting:
        deps = [
            dep.replace("${caption.images}", captioned) for dep in STAGES[waiting.pop()]["deps"]
        ]
        for dep in [
            dep.replace("${item.partner}", partner) for dep in deps for partner in PARTNERS
        ]:
            paths.add(dep)
            makers = {
                name
                for name, other in STAGES.items()
                if any(overlaps(out, dep) for out in outs_of(other))
            }
            waiting += makers - stages
            stages |= makers
    return stages, paths


def data_of(stage: str) -> list[str]:
    """The dependencies of a stage that are not code."""
    return [dep for dep in STAGES[stage]["deps"] if not dep.startswith(("src", "stages"))]


def outs_of(stage: dict) -> list[str]:
    """The paths of a stage's outs, each of which is a path or ``{path: options}``."""
    return [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]


def overlaps(out: str, dep: str) -> bool:
    """Whether one path is the other or holds it, segment by segment; ``${...}`` within stands for
    any segment.
    """
    if dep.startswith("${"):  # a model or a data source of the user's
        return False
    pairs = zip(out.split("/"), dep.split("/"), strict=False)
    return all(mine == theirs or "${" in mine or "${" in theirs for mine, theirs in pairs)


@pytest.mark.parametrize("captioned", CAPTIONED)
@pytest.mark.parametrize("stage", LEARNING)
def test_validation_and_test_images_never_reach_a_stage_that_learns_from_images(stage, captioned):
    held_out = {"outputs/real/validation", "outputs/real/test"}
    assert held_out < set(STAGES["prepare"]["outs"])
    stages, paths = upstream(stage, captioned)
    assert "prepare" in stages
    assert not any(dep == out or out.startswith(dep + "/") for dep in paths for out in held_out)


@pytest.mark.parametrize("captioned", CAPTIONED)
@pytest.mark.parametrize("stage", LEARNING)
def test_images_of_another_look_never_reach_a_stage_that_learns_from_images(stage, captioned):
    stages, paths = upstream(stage, captioned)
    assert stages.isdisjoint({"corrupt", "ood"})
    assert not [path for path in paths if path.startswith("outputs/ood")]


def test_images_of_another_look_are_made_from_test_images_or_sources_alone():
    assert data_of("corrupt") == ["outputs/real/test"]
    assert data_of("ood") == ["${item.source}", "outputs/real/test"]
    assert {"corrupt", "ood"} < upstream("train", CAPTIONED[0])[0]


@pytest.mark.parametrize("captioned", CAPTIONED)
@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_itself(stage, captioned):
    assert stage not in upstream(stage, captioned)[0]


def test_naive_images_can_be_captioned_in_place_of_real_ones():
    assert "naive" not in upstream("caption", "outputs/real/train")[0]
    assert "naive" in upstream("caption", "outputs/naive/0")[0]
    assert "outputs/real/train" in upstream("caption", "outputs/naive/0")[1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_tracks_the_parameters_it_reads_and_they_exist(stage):
    tracked = {entry.replace("${key}", KEYS.get(stage, "")) for entry in STAGES[stage]["params"]}
    params = load_params(ROOT / "recipes/default.yaml").model_dump() | {"partial": {"content": {}}}
    for dotted in tracked:
        value = params
        for part in dotted.split("."):
            assert part in value, f"{stage}: {dotted} is not a parameter"
            value = value[part]
    given_by_dvc = (
        {"synthesize.replicas"} if "matrix" in STAGES[stage] or stage == "partial" else set()
    )  # or 0
    for section, field in parameters_read(stage):
        fields = [field] if field else list(params[section])
        for dotted in {f"{section}.{name}" for name in fields} - given_by_dvc:
            assert any(
                entry in (section, dotted) or entry.startswith(f"{dotted}.") for entry in tracked
            ), f"stages/{stage}.py reads {dotted}, which dvc.yaml does not track"


def parameters_read(stage: str) -> set[tuple[str, str]]:
    """(section, field) of each ``params.section.field`` in a stage module and in the functions that
    it gives ``params`` to; the field is empty for a whole section.
    """
    read = read_in(ast.parse((ROOT / "stages" / f"{stage}.py").read_text()))
    if ("train", "optimization") in read:
        read.remove(("train", "optimization"))
        read |= {("train", name) for name in Optimization.model_fields}
    return read


def read_in(module: ast.Module, body: ast.AST | None = None) -> set[tuple[str, str]]:
    """What `body`, or else all of the module, reads; ``params.generator`` and the like read a model
    and its type.
    """
    nodes = list(ast.walk(body or module))
    own = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "params"
    ]
    sections = {node for node in own if node.attr in Params.model_fields}
    fields = [node for node in nodes if isinstance(node, ast.Attribute) and node.value in sections]
    whole = sections - {node.value for node in fields}
    read = {(node.value.attr, node.attr) for node in fields} | {(node.attr, "") for node in whole}
    models = {node.attr for node in own} & (set(Models.model_fields) - {"dtype"})
    read |= {("models", field) for name in models for field in (name, "dtype")}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    for call in calls:
        given = {argument.id for argument in call.args if isinstance(argument, ast.Name)}
        if "params" in given and isinstance(call.func, ast.Name):
            read |= read_in(*function_of(module, call.func.id))
    return read


def function_of(module: ast.Module, name: str) -> tuple[ast.Module, ast.FunctionDef]:
    """The function that a module defines, or imports from truelike, and the module that defines
    it.
    """
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            assert node.module
            file = ROOT / "src" / (node.module.replace(".", "/") + ".py")
            return function_of(ast.parse(file.read_text()), name)
    raise AssertionError(f"{name} is neither defined nor imported")

"""dvc.yaml against the code: a stage lists just the code it imports, and no held-out image reaches
learning.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from truelike.runtime.rooms import rooms_of
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage.get("do", stage) for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items()
}
PARTNERS = ("synthetic", "naive", "extra", "partial/content")  # what an arm's partner may be
CAPTIONED = ("outputs/real/train", "outputs/naive/0")  # what caption.images may be
LEARNING = (
    "caption",
    "embed",
    "invert",
    "adapt",
    "allocate",
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


def upstream(
    stage: str, captioned: str, partners: Sequence[str] = PARTNERS
) -> tuple[set[str], set[str]]:
    """The stages and the paths that a stage depends on, directly or not, when `captioned` is
    caption.images and arms have these partners.
    """
    stages: set[str] = set()
    paths: set[str] = set()
    waiting = [stage]
    while waiting:
        deps = [
            dep.replace("${caption.images}", captioned).replace("${item.adds_to}", "synthetic")
            for dep in STAGES[waiting.pop()]["deps"]
        ]
        for dep in [
            dep.replace("${item.partner}", partner) for dep in deps for partner in partners
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


def test_of_an_arm_a_round_sees_the_networks_alone_which_no_held_out_image_chooses():
    assert [path for path in data_of("round") if path.startswith("outputs/train")] == [
        "outputs/train/${item.after}/networks"
    ]
    held_out = ("outputs/real/validation", "outputs/real/test", "outputs/extra", "outputs/ood")
    assert not [path for path in data_of("round") if path.startswith(held_out)]


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


def test_the_arm_real_whose_network_can_guide_synthesis_needs_no_synthetic_image():
    assert "${synthesize.feedback.network}" in STAGES["synthesize"]["deps"]
    stages, paths = upstream("train", CAPTIONED[0], ["extra"])
    assert stages == {"prepare", "corrupt", "ood"}
    assert not [path for path in paths if path.startswith(("outputs/synthetic", "outputs/naive"))]


def test_naive_images_can_be_captioned_in_place_of_real_ones():
    assert "naive" not in upstream("caption", "outputs/real/train")[0]
    assert "naive" in upstream("caption", "outputs/naive/0")[0]
    assert "outputs/real/train" in upstream("caption", "outputs/naive/0")[1]

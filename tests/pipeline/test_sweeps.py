"""`dvc exp run -S` as a user types it: numbers arrive as numbers, mistakes are named, finished work
is kept.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import ENVIRONMENT
from truelike.config import load_params
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = """
stages:
  prepare:
    cmd: python -m stages.prepare
    deps: [stages/prepare.py, "${data.source}"]
    params: [data, adapt.lr]
    outs: [outputs/real/train, outputs/real/validation, outputs/real/test, outputs/extra]
"""


def run(project: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def state(project: Path) -> str:
    return run(project, "git", "status", "--short")[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A git and DVC project of the stage prepare alone, committed."""
    project = tmp_path_factory.mktemp("project")
    for name in ("stages", "src", "data"):
        shutil.copytree(
            ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project)
    shutil.copy(ROOT / "recipes/default.yaml", project / "params.yaml")
    (project / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, project / ".dvc")
    (project / "dvc.yaml").write_text(PIPELINE)
    for command in (["git", "init", "-q"], ["git", "add", "."], ["git", "commit", "-qm", "start"]):
        assert run(project, *command)[0] == 0
    return project


@pytest.mark.slow
def test_a_small_number_arrives_as_a_number(project):
    code, output = run(
        project, "dvc", "exp", "run", "-S", "adapt.lr=5e-5", "-S", "data.shots=2", "prepare"
    )
    assert code == 0, output
    params = load_params(project / "params.yaml")
    assert "# Recipes in force: fashion\n" in (project / "params.yaml").read_text()
    assert isinstance(params.adapt.lr, float)
    assert (params.adapt.lr, params.data.shots) == (5e-5, 2)
    lock = read_yaml(project / "dvc.lock")["stages"]["prepare"]
    assert lock["params"]["params.yaml"]["data"]["shots"] == 2
    assert {line.split()[-1] for line in state(project).splitlines()} == {"params.yaml", "dvc.lock"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("+data.shot=3", "unknown parameter 'data.shot'; did you mean 'shots'?"),
        ("data.shots=many", "data.shots: "),
    ],
)
def test_a_mistake_stops_the_stage_with_its_name(project, setting, message):
    code, output = run(project, "dvc", "exp", "run", "-S", setting, "prepare")
    assert code != 0
    assert message in output
    run(project, "git", "checkout", "-q", "params.yaml")


@pytest.mark.slow
def test_a_folder_of_ones_own_is_queued_after_dvc_add(project):
    """As README says; without `dvc add` the copy that the queue runs in would not have it."""
    draw = np.random.default_rng(0)
    for name in ("bag", "coat"):
        (project / "own pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / "own pictures" / name / f"{number}.png")
    assert run(project, "dvc", "add", "-q", "own pictures")[0] == 0
    settings = ["-S", 'data.source="own pictures"', "-S", "data.shots=1,2"]
    code, output = run(project, "dvc", "exp", "run", "--queue", *settings)
    assert code == 0, output
    code, output = run(project, "dvc", "exp", "run", "--run-all")
    assert code == 0, output
    shown = run(project, "dvc", "exp", "show", "--csv")[1]
    assert shown.count("own pictures") >= 2, output + shown
    run(project, "git", "checkout", "-q", ".")

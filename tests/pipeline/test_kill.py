"""Stages of a real pipeline on tiny models, killed by real signals, end with the bytes of a run
that nobody disturbed.

Every stage is killed by every signal. Over the table the other pairs are covered too: who gets the
signal (the stage, dvc, the whole process group as from Ctrl-C or a batch system, one of training's
worker processes), what runs the stage (`dvc repro`, also with torchrun, `dvc exp run`, the queue),
and when (while the stage starts, or once it has made or kept something, each plus a random delay).
Left out is what means nothing: dvc and workers ignore SIGINT, which is the stage's to handle; a
queue has no terminal. What was killed ends by `dvc repro`, training in two processes of torchrun;
the undisturbed run is in this process, to save imports.
"""

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from tests.support.tiny_project import MODELS, write_pictures_and_models
from truelike.runtime.processes import one_thread
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    **{
        f"GIT_{role}_{what}": "t@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}
ARM = {
    "partner": "synthetic",
    "phases": [{"on": "partner", "share": 0.5, "mixup": 0.2}, {"on": "real", "share": 0.5}],
}
SETTINGS = {
    "data": {"source": "pictures", "resolution": 16, "shots": 8},
    "models": MODELS,
    "caption": {"batch_size": 1},
    "embed": {"batch_size": 1},
    "invert": {"steps": 60, "batch_size": 4, "checkpoint_every": 4, "initializer": "a"},
    "adapt": {"steps": 60, "batch_size": 4, "checkpoint_every": 4},
    "naive": {"steps": 1, "batch_size": 16},
    "synthesize": {"steps": 8, "replicas": [0], "batch_size": 1, "shard_size": 1}
    | {"feedback": {"criterion": "off", "weight": 1.0, "every": 1, "network": "tiny/net.yaml"}},
    "select": {"classifier_steps": 60, "min_class_probability": 0.0},
    "train": {
        "steps": 80,
        "batch_size": 8,
        "checkpoint_every": 4,
        "seeds": [0, 1],
        "arms": {"real": {"partner": "extra", "phases": [{"on": "real"}]}, "bridged": ARM},
    },
    "audit": {"batch_size": 1, "bootstrap": 100, "neighbours": 2},
}
KEPT = {  # what a stage keeps while it works
    "invert": "*/checkpoint.pt",
    "adapt": "*/checkpoint.pt",
    "synthesize": "*/shard-*.tar",
    "train": "*/seed-*.pt",
}
OUTS = {
    "caption": "captions.parquet",
    "embed": "features.parquet",
    "invert": "style",
    "adapt": "adapter",
    "synthesize": "synthetic/0",
    "select": "selection/synthetic.parquet",
    "train": "train/bridged",
    "audit": "audit",
}


class Kill(NamedTuple):
    signal: signal.Signals
    target: str
    driver: str
    when: str = "at work"


KILLS = {
    "caption": [
        Kill(SIGINT, "group", "repro", "at start"),
        Kill(SIGTERM, "dvc", "repro"),
        Kill(SIGKILL, "stage", "exp run"),
    ],
    "embed": [
        Kill(SIGINT, "stage", "exp run"),
        Kill(SIGTERM, "group", "repro", "at start"),
        Kill(SIGKILL, "dvc", "repro"),
    ],
    "invert": [
        Kill(SIGINT, "group", "exp run"),
        Kill(SIGTERM, "stage", "queue"),
        Kill(SIGKILL, "stage", "repro", "at start"),
    ],
    "adapt": [
        Kill(SIGINT, "stage", "repro", "at start"),
        Kill(SIGTERM, "group", "repro"),
        Kill(SIGKILL, "dvc", "exp run"),
    ],
    "synthesize": [
        Kill(SIGINT, "group", "repro"),
        Kill(SIGTERM, "dvc", "exp run"),
        Kill(SIGKILL, "dvc", "queue"),
    ],
    "select": [
        Kill(SIGINT, "stage", "queue", "at start"),
        Kill(SIGTERM, "stage", "repro"),
        Kill(SIGKILL, "group", "repro", "at start"),
    ],
    "train": [
        Kill(SIGINT, "group", "repro"),
        Kill(SIGTERM, "worker", "exp run"),
        Kill(SIGKILL, "worker", "queue"),
        Kill(SIGKILL, "stage", "repro"),
        Kill(SIGKILL, "worker", "torchrun"),
        Kill(SIGKILL, "stage", "torchrun"),
        Kill(SIGINT, "group", "torchrun"),
    ],
    "audit": [
        Kill(SIGINT, "stage", "repro"),
        Kill(SIGTERM, "stage", "exp run", "at start"),
        Kill(SIGKILL, "group", "exp run"),
    ],
}


TORCHRUN = {"LAUNCH": "torchrun --nproc-per-node 2"}


def run(*command: str, cwd: Path, **environment: str) -> str:
    """What a command that succeeds prints."""
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def instance(stage: str) -> str:
    """A stage as DVC names it."""
    return stage + {"naive": "@0", "synthesize": "@0", "train": "@bridged"}.get(stage, "")


def undisturbed(project: Path, stage: str) -> None:
    """Run a stage in this process."""
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(project), one_thread():
        patch.delenv("DVC_ROOT", raising=False)
        patch.setattr(sys, "argv", [stage, *instance(stage).split("@")[1:]])
        importlib.import_module(f"stages.{stage}").main()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project on tiny models, its stages run undisturbed and committed; `expected`
    keeps their outs.
    """
    signal.signal(
        SIGINT, signal.default_int_handler
    )  # children of a background job would ignore it
    project = tmp_path_factory.mktemp("killed") / "project"
    for name in ("src", "stages"):
        shutil.copytree(
            ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, project / name)
    write_pictures_and_models(project)
    params = read_yaml(ROOT / "recipes/default.yaml")
    for section, values in SETTINGS.items():
        params[section].update(values)
    with (project / "params.yaml").open("w") as file:
        YAML().dump(params | {"ood": {}}, file)
    run("git", "init", "-q", cwd=project)
    learning, making = list(OUTS)[:4], list(OUTS)[4:]
    stages = ("prepare", "corrupt", *learning, "allocate", "naive", *making)
    for stage in stages:
        undisturbed(project, stage)
    run("dvc", "commit", "-q", "-f", *map(instance, stages), cwd=project)
    shutil.copytree(project / "outputs", project.parent / "expected")
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "Undisturbed", cwd=project)
    run("git", "tag", "undisturbed", cwd=project)
    shutil.rmtree(project / ".work")
    return project


def lock_of(project: Path, commit: str) -> dict[str, Any]:
    """What dvc.lock of a commit says of each stage."""
    return YAML(typ="safe").load(run("git", "show", f"{commit}:dvc.lock", cwd=project))["stages"]


def recorded(project: Path, stage: str) -> bool:
    """Whether dvc.lock says that the stage is done, in the project or in one of its experiments."""
    refs = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/*", cwd=project).split()
    locks = [lock_of(project, ref) for ref in refs]
    return any(
        instance(stage) in lock for lock in (*locks, read_yaml(project / "dvc.lock")["stages"])
    )


def forget(project: Path, stage: str) -> None:
    """Make the stage, of an undisturbed project, one that was never run."""
    run("git", "checkout", "-q", "undisturbed", "--", "dvc.lock", cwd=project)
    shutil.rmtree(project / "outputs")
    shutil.copytree(project.parent / "expected", project / "outputs")
    lock = read_yaml(project / "dvc.lock")
    del lock["stages"][instance(stage)]
    with (project / "dvc.lock").open("w") as file:
        YAML().dump(lock, file)
    run("git", "commit", "-qam", f"Without {stage}", cwd=project)
    out = project / "outputs" / OUTS[stage]
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)


def running(project: Path, stage: str, since: float = 0.0) -> list[psutil.Process]:
    """The processes of a stage, with its workers, that started at `since` or later; parents
    first.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = f"stages.{stage}" in process.cmdline() and process.cwd().startswith(str(project))
            if mine and process.create_time() >= since:
                found.append(process)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 300
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def driven(project: Path, stage: str, driver: str) -> Iterator[psutil.Popen]:
    """Run a stage by dvc, in a process group of its own; wait for it at the end."""
    command = ["dvc", *driver.replace("torchrun", "repro").split(), "-s", instance(stage)]
    environment = ENVIRONMENT | (TORCHRUN if driver == "torchrun" else {})
    if driver == "queue":
        run("dvc", "exp", "run", "--queue", "-s", instance(stage), cwd=project)
        command = ["dvc", "queue", "start"]
    with (project.parent / "log").open("w") as log:
        process = psutil.Popen(
            command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        yield process
        process.wait(300)


def kept(project: Path, stage: str) -> dict[Path, int]:
    """When each file that the stage keeps was written, in nanoseconds."""
    files = (project / ".work" / stage).glob(KEPT[stage])
    with contextlib.suppress(FileNotFoundError):
        return {file: file.stat().st_mtime_ns for file in files}
    return {}


def kill(project: Path, stage: str, how: Kill, draw: np.random.Generator) -> None:
    since, before = time.time(), kept(project, stage) if stage in KEPT else {}
    with driven(project, stage, how.driver) as dvc:
        process = wait_for(lambda: running(project, stage, since), f"{stage} to start")[0]
        if how.when == "at start":
            time.sleep(draw.uniform(0, 2))
        elif stage in KEPT:
            wait_for(
                lambda: kept(project, stage).items() - before.items(), f"{stage} to keep something"
            )
            time.sleep(draw.uniform(0, 0.05))
        else:
            lock = Path(process.cwd(), ".work/running", instance(stage))
            wait_for(
                lambda: lock.exists() and lock.read_text() == str(process.pid), f"{stage} to work"
            )
            time.sleep(draw.uniform(0, 0.1))
        if how.target == "group":
            os.killpg(dvc.pid, how.signal)
        elif how.target == "worker":
            draw.choice(np.array(process.children(), object)).send_signal(how.signal)
        elif how.target == "dvc" and how.driver == "queue":
            next(
                parent for parent in process.parents() if "dvc" in " ".join(parent.cmdline())
            ).send_signal(how.signal)
        else:
            {"stage": process, "dvc": dvc}[how.target].send_signal(how.signal)
    if how.driver != "queue":
        assert dvc.returncode != 0, (project.parent / "log").read_text()


def contents(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {
        file.relative_to(path).as_posix(): file.read_bytes() for file in files if file.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", KILLS)
def test_a_killed_stage_is_not_recorded_resumes_and_ends_with_the_same_bytes(project, stage):
    forget(project, stage)
    draw = np.random.default_rng(list(KILLS).index(stage))
    for how in KILLS[stage]:
        kill(project, stage, how, draw)
        assert not recorded(project, stage), how
    wait_for(lambda: not running(project, stage), f"the orphans of {stage} to end")
    finished = [file.with_suffix("") for file in (project / ".work" / stage).rglob("*.sha256")]
    times = {
        file: file.stat().st_mtime_ns for file in finished if file.suffix != ".pt" and file.exists()
    }
    assert times or stage not in ("caption", "embed", "synthesize")
    said = run(
        "dvc", "repro", "-s", instance(stage), cwd=project, **(TORCHRUN if stage == "train" else {})
    )
    assert ("goes on after step" in said) == KEPT.get(stage, "").endswith(".pt")
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert contents(project / "outputs" / OUTS[stage]) == contents(
        project.parent / "expected" / OUTS[stage]
    )
    assert read_yaml(project / "dvc.lock")["stages"] == lock_of(project, "undisturbed")

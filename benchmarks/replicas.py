"""What a second replica and a kill cost, in a copy of the project:
``python -m benchmarks.replicas``.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks import compare, table, write
from truelike.config import PARAMS_FILE

LOCK_FILE = "dvc.lock"
BEFORE = ("prepare", "caption", "embed", "invert", "adapt")  # a replica's inputs
FIRST, SECOND = "one replica", "a second one beside it"


def copy_project(source: Path, project: Path) -> None:
    """Copy the tracked files of `source`, with its cache and the replicas' inputs, as a project of
    its own.
    """
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=source, text=True).split("\0")
    for name in filter(None, files):
        if (source / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, project / name)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    dvc(project, "config", "--local", "cache.dir", str((source / ".dvc/cache").resolve()))
    dvc(project, "checkout", "-q", *BEFORE)


def dvc(project: Path, *words: str) -> None:
    subprocess.run(
        ["dvc", *words], cwd=project, env=environment(), check=True, stdout=subprocess.DEVNULL
    )


def environment() -> dict[str, str]:
    """This process's, without the project that it may be run by, and with the copy's own code."""
    return {
        name: value for name, value in os.environ.items() if name not in ("DVC_ROOT", "PYTHONPATH")
    }


def set_synthesis(project: Path, **values: object) -> None:
    """Change the section `synthesize` of the project's parameters."""
    yaml = YAML()
    params = yaml.load(project / PARAMS_FILE)
    params["synthesize"].update(values)
    yaml.dump(params, project / PARAMS_FILE)


def forget(project: Path) -> None:
    """Make the replicas of `project` ones that were never made."""
    yaml = YAML()
    lock = yaml.load(project / LOCK_FILE)
    lock["stages"] = {
        name: stage for name, stage in lock["stages"].items() if not name.startswith("synthesize@")
    }
    yaml.dump(lock, project / LOCK_FILE)
    for name in ("outputs/synthetic", ".work"):
        shutil.rmtree(project / name, ignore_errors=True)


def make(project: Path, replicas: list[int]) -> None:
    """`dvc repro` of as many replicas; those that are there are kept, a first one starts from
    none.
    """
    if len(replicas) == 1:
        forget(project)
    set_synthesis(project, replicas=replicas)
    dvc(project, "repro", "-q", "--no-run-cache", "synthesize")


def resume(project: Path, shard_size: int) -> tuple[int, int]:
    """Kill a replica with all its processes half-way and make it again: its images, and how many
    were made twice.
    """
    forget(project)
    set_synthesis(project, replicas=[0], batch_size=shard_size, shard_size=shard_size)
    log = project / "log"
    command = ["dvc", "repro", "--no-run-cache", "synthesize"]
    with log.open("w") as file:
        killed = subprocess.Popen(
            command, cwd=project, env=environment(), stderr=file, start_new_session=True
        )
        while not (counts := bar(log)) or counts[0] < counts[1] / 2:
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    begun, total = bar(log) or (0, 0)
    dvc(project, "repro", "-q", "--no-run-cache", "synthesize")
    rows = (project / ".work/ledger.jsonl").read_text().splitlines()
    return total, begun + json.loads(rows[-1])["images"] - total


def bar(log: Path) -> tuple[int, int] | None:
    """The images that a log's progress bar has counted last, and all of them."""
    found = re.findall(r"(\d+)/(\d+) \[", log.read_text())
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, help="denoising steps, fewer than the demo's for a quick look"
    )
    parser.add_argument("--shard-size", type=int, default=16, help="of the replica that is killed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        project = Path(parent) / "project"
        copy_project(Path.cwd(), project)
        if arguments.steps:
            set_synthesis(project, steps=arguments.steps)
        sides = {FIRST: partial(make, project, [0]), SECOND: partial(make, project, [0, 1])}
        costs = compare(sides, arguments.repeats)
        total, twice = resume(project, arguments.shard_size)
    ratio = costs[SECOND].wall / costs[FIRST].wall
    lines = [*table(costs, FIRST), "", f"The second costs {ratio:.2f} times the first.", ""]
    lines += [
        f"Killed half-way, of {total} images in shards of {arguments.shard_size}: {twice} made "
        "twice."
    ]
    write("replicas", lines)


if __name__ == "__main__":
    main()

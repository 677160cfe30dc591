"""Peak memory of the stages as the number of images grows: ``python -m benchmarks.memory``.

*Anonymous* memory is what no file backs: the system cannot take it back. It is the largest sum over
a stage's processes (Pss_Anon of Linux's smaps_rollup, which counts a page that forks share once),
looked up every 50 milliseconds. *Resident* memory, of the ledger, has the pages of mapped files
besides, which the system drops when it needs the space.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from ruamel.yaml import YAML

from benchmarks import write
from truelike.config import PARAMS_FILE
from truelike.imageset.writing import encode_png

STAGES = (
    "prepare",
    "corrupt",
    "caption",
    "embed",
    "invert",
    "adapt",
    "allocate",
    "naive 0",
    "synthesize 0",
    "select",
    "train real",
    "train mixed",
    "evaluate",
    "audit",
    "halves",
    "attack",
    "report",
)
INTERVAL = 0.05
ROOT = Path.cwd()


def write_source(folder: Path, per_class: int, classes: int = 10, side: int = 16) -> None:
    """An image folder of random images: a fifth more than are trained on, for validation and
    test.
    """
    draw = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class-{label}").mkdir(parents=True)
        for number in range(per_class):
            image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            (folder / f"class-{label}/{number:05d}.png").write_bytes(encode_png(image))


def settings(project: Path) -> dict:
    """The demo's parameters, with little work per image: what is measured does not depend on the
    number of steps.
    """
    params = YAML(typ="safe").load(ROOT / PARAMS_FILE)
    for name, path in params["models"].items():
        if name not in ("dtype", "compile"):
            params["models"][name] = str(ROOT / path)
    params["data"] |= {"source": str(project / "images"), "shots": None}
    params["ood"] = {}
    params["invert"] |= {"steps": 2}
    params["adapt"] |= {"steps": 2}
    params["naive"] |= {"steps": 1}
    params["synthesize"] |= {"steps": 1, "replicas": [0], "guidance_scale": 1.0}
    params["select"]["classifier_steps"] = 20
    arms = {name: params["train"]["arms"][name] for name in ("real", "mixed")}
    params["train"] |= {"steps": 20, "seeds": [0], "arms": arms}
    params["audit"]["bootstrap"] = params["evaluate"]["bootstrap"] = 100
    return params


def anonymous(parent: psutil.Process) -> int:
    """Bytes of a process and its descendants that no file backs."""
    total = 0
    with suppress(psutil.Error):
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(OSError):  # it has ended
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                total += sum(
                    1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")
                )
    return total


class Peak(NamedTuple):
    """MiB of a stage's processes: anonymous memory, resident memory; its seconds; MiB of tensors on
    a GPU.
    """

    anonymous: float
    resident: float
    seconds: float
    gpu: float | None


def peaks(per_class: int, stages: tuple[str, ...] = STAGES) -> dict[str, Peak]:
    """Peaks of each stage, run in turn on `per_class` images of a class."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        write_source(project / "images", per_class)
        YAML(typ="safe").dump(settings(project), project / PARAMS_FILE)
        return watch(project, stages)


def watch(project: Path, stages: Sequence[str], interval: float = INTERVAL) -> dict[str, Peak]:
    """Run stages of this tree in turn in `project`, a folder with a params.yaml; their peaks."""
    found = {}
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    environment.pop("DVC_ROOT", None)
    for stage in stages:
        command = [sys.executable, "-m", *f"stages.{stage}".split()]
        with subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.DEVNULL
        ) as running:
            highest, process = 0, psutil.Process(running.pid)
            while running.poll() is None:
                highest = max(highest, anonymous(process))
                time.sleep(interval)
        if running.returncode:
            raise subprocess.CalledProcessError(running.returncode, command)
        row = json.loads((project / ".work/ledger.jsonl").read_text().splitlines()[-1])
        own = row["peak_memory_mib"], row["seconds"], row["peak_gpu_mib"]
        found[stage] = Peak(highest / 2**20, *own)
        print(f"{stage}: {found[stage]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--per-class", type=int, nargs="+", default=[50, 200, 800], help="images per class, of ten"
    )
    sizes = parser.parse_args().per_class
    found = [peaks(size) for size in sizes]
    lines = [
        "| anonymous (resident) MiB at | "
        + " | ".join(f"{10 * size:,} images" for size in sizes)
        + " | more KiB per image more |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for stage in found[0]:
        more = found[-1][stage].anonymous - found[-2][stage].anonymous
        slope = 1024 * more / (10 * (sizes[-1] - sizes[-2]))
        cells = [f"{row[stage].anonymous:.0f} ({row[stage].resident:.0f})" for row in found]
        lines.append(f"| {stage} | {' | '.join(cells)} | {slope:.1f} |")
    write("memory", lines)


if __name__ == "__main__":
    main()

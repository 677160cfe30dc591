"""Peak memory of the stages as the number of images grows: ``python -m benchmarks.memory``."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from benchmarks import write
from truelike.config import PARAMS_FILE
from truelike.data.imageset import encode_png

STAGES = (
    "prepare",
    "corrupt",
    "caption",
    "embed",
    "invert",
    "adapt",
    "naive 0",
    "synthesize 0",
    "select",
    "train synthetic",
    "audit",
)
ROOT = Path.cwd()


def write_source(folder: Path, per_class: int, classes: int = 10, side: int = 16) -> None:
    """An image folder of random images: a fifth more than are trained on, for validation and test."""
    draw = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class-{label}").mkdir(parents=True)
        for number in range(per_class):
            image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            (folder / f"class-{label}/{number:05d}.png").write_bytes(encode_png(image))


def settings(project: Path) -> dict:
    """The demo's parameters, with little work per image: what is measured does not depend on the number of steps."""
    params = YAML(typ="safe").load(ROOT / PARAMS_FILE)
    for name, path in params["models"].items():
        if name != "dtype":
            params["models"][name] = str(ROOT / path)
    params["data"] |= {"source": str(project / "images"), "shots": None}
    params["ood"] = {}
    params["invert"]["enabled"] = params["adapt"]["enabled"] = False
    params["naive"] |= {"steps": 1}
    params["synthesize"] |= {"steps": 1, "replicas": [0], "guidance_scale": 1.0}
    params["select"]["classifier_steps"] = 20
    params["train"] |= {"steps": 20, "seeds": [0]}
    params["audit"]["bootstrap"] = 2
    return params


def peaks(per_class: int, stages: tuple[str, ...] = STAGES) -> dict[str, int]:
    """Peak memory in MiB of every stage, run one after the other on a source of `per_class` images per class."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        write_source(project / "images", per_class)
        YAML(typ="safe").dump(settings(project), project / PARAMS_FILE)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        environment.pop("DVC_ROOT", None)
        for stage in stages:
            command = [sys.executable, "-m", *f"stages.{stage}".split()]
            subprocess.run(command, cwd=project, env=environment, check=True, stderr=subprocess.DEVNULL)
        rows = map(json.loads, (project / ".work/ledger.jsonl").read_text().splitlines())
        return {row["stage"]: row["peak_memory_mib"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-class", type=int, nargs="+", default=[20, 80, 320], help="images of each of ten classes")
    sizes = parser.parse_args().per_class
    found = [peaks(size) for size in sizes]
    lines = [
        "| MiB at | " + " | ".join(f"{10 * size:,} images" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    lines += [f"| {stage} | " + " | ".join(str(row[stage]) for row in found) + " |" for stage in found[0]]
    write("memory", lines)


if __name__ == "__main__":
    main()

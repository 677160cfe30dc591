"""A set in shards against loose files in DVC: ``python -m benchmarks.storage [--images
200000]``.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import Cost, cost, table, write
from truelike.imageset.writing import Sample, encode_png, write_image_set

CLASSES = [f"class-{number}" for number in range(10)]


def samples(count: int, side: int = 8) -> list[Sample]:
    """Random images of `side` pixels."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return [
        Sample(f"{number:07d}", number % len(CLASSES), image) for number, image in enumerate(pixels)
    ]


def write_loose(folder: Path, images: list[Sample]) -> None:
    """An image folder: a PNG file per image in the folder of its class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for image in images:
        (folder / CLASSES[image.label] / f"{image.key}.png").write_bytes(encode_png(image.pixels))


def dvc(project: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words, "--quiet"], cwd=project, check=True)


def start_project(project: Path) -> None:
    """A DVC project with a local remote."""
    project.mkdir()
    dvc(project, "init", "--no-scm")
    dvc(project, "config", "core.analytics", "false")
    dvc(project, "remote", "add", "--default", "store", str(project.with_suffix(".remote")))


def measure(project: Path) -> dict[str, Cost]:
    """What it costs to add, check, push and pull (into a project without a cache) the folder
    ``set`` of a project.
    """
    spent = {
        words: cost(partial(dvc, project, *words.split()))
        for words in ("add set", "status", "push")
    }
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "set")
    return spent | {"pull": cost(partial(dvc, project, "pull"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    images = samples(parser.parse_args().images)
    with tempfile.TemporaryDirectory() as temporary:
        loose, sharded = Path(temporary) / "loose", Path(temporary) / "sharded"
        for project in (loose, sharded):
            start_project(project)
        write_loose(loose / "set", images)
        write_image_set(sharded / "set", images, CLASSES)
        found = {"loose files": measure(loose), "shards": measure(sharded)}
    lines = [f"{len(images):,} images of 8 x 8 pixels:", ""]
    for operation in found["shards"]:
        costs = {side: spent[operation] for side, spent in found.items()}
        lines += [f"`dvc {operation}`", "", *table(costs, "loose files"), ""]
    total = {
        side: Cost(*map(sum, zip(*costs.values(), strict=True))) for side, costs in found.items()
    }
    write(f"storage {len(images)}", [*lines, "All four:", "", *table(total, "loose files")])


if __name__ == "__main__":
    main()

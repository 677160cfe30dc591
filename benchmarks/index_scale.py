"""How image sets and DVC take to many images:
``python -m benchmarks.index_scale 10000 100000 1000000``.

Sets of tiny images with the index of synthetic ones, at most 200 shards each, in a DVC repository
in a temporary directory with a remote beside it. Prints a row per number of images; times in
seconds, sizes in MB.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.synthesis.plan import image_seed

CLASSES = [f"class {number}" for number in range(1000)]
COLUMNS = (
    "rows",
    "files",
    "MB",
    "index MB",
    "write",
    "open",
    "read 1000",
    "add",
    "status",
    "push",
    "pull",
)


def samples(count: int) -> Iterator[Sample]:
    """Images of 8 x 8 pixels with as much beside each of them as beside a synthetic one."""
    draw = np.random.default_rng(0)
    shared = {
        "split": "synthetic",
        "replica": 0,
        "generator": "0123456789abcdef",
        "adapter": "0123456789abcdef",
    }
    shared |= {
        "style": "0123456789abcdef",
        "sampler": "unipc",
        "steps": 20,
        "guidance_scale": 2.0,
        "strength": 0.6,
    }
    for number in range(count):
        key, label = f"image-{number:08d}", number % len(CLASSES)
        own = {
            "source_key": key,
            "caption_key": key,
            "prompt": f"a photo of a {CLASSES[label]}, number {number} of those that were "
            "captioned, in some style",
            "seed": image_seed(0, 0, key),
        }
        yield Sample(f"{key}-r0", label, draw.integers(0, 256, (8, 8, 3), np.uint8), own | shared)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(count: int, project: Path) -> list[float]:
    """The values of COLUMNS."""

    def run(command: str) -> None:
        subprocess.run(command.split(), cwd=project, check=True, capture_output=True)

    settings = (
        "dvc config core.analytics false",
        "dvc config cache.type hardlink",
        "dvc remote add -d beside ../remote",
    )
    for command in ("git init", "dvc init -q", *settings):
        run(command)
    folder = project / "set"
    write = seconds(
        lambda: write_image_set(folder, samples(count), CLASSES, max(1000, -(-count // 200)))
    )
    files = list(folder.iterdir())
    size = sum(file.stat().st_size for file in files) / 1e6
    opened = seconds(lambda: ImageSet(folder))
    images = ImageSet(folder)
    read = seconds(lambda: images.load(np.random.default_rng(1).integers(0, count, 1000).tolist()))
    dvc = [seconds(partial(run, command)) for command in ("dvc add set", "dvc status", "dvc push")]
    run("rm -r set .dvc/cache")
    pull = seconds(lambda: run("dvc pull"))
    return [
        count,
        len(files),
        size,
        (folder / "index.parquet").stat().st_size / 1e6,
        write,
        opened,
        read,
        *dvc,
        pull,
    ]


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as parent:
            project = Path(parent) / "project"
            project.mkdir()
            values = measure(count, project)
        print(f"| {' | '.join(map(short, values))} |", flush=True)


if __name__ == "__main__":
    main()

"""``dvc repro`` when nothing changed, against what DVC itself takes to start:
``python -m benchmarks.pipeline``.
"""

import subprocess
import sys
from functools import partial

from benchmarks import compare, table, write


def dvc(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    dvc("repro")
    sides = {
        "`dvc repro` of all stages, nothing to do": ("repro",),
        "`dvc --version`, DVC's own start": ("--version",),
    }
    costs = compare({name: partial(dvc, *words) for name, words in sides.items()}, repeats=5)
    write("pipeline", table(costs, next(iter(sides))))


if __name__ == "__main__":
    main()

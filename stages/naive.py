"""Make one replica of the yardstick: plain text-to-image from class prompts, nothing learned from the real images."""

import sys
from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.synthesis.run import naive_job, synthesize


def main() -> None:
    params = load_params()
    replica = int(sys.argv[1])
    job = naive_job(
        params.naive,
        base=params.prompts.base,
        definitions=params.prompts.definitions,
        prompt_seed=params.prompts.seed,
        negative=params.prompts.negative,
        generator=params.models.generator,
        dtype=params.models.dtype,
        real=Path("outputs/real/train"),
    )
    synthesize(job, replica, Path("outputs/naive") / str(replica))


if __name__ == "__main__":
    run("naive", main)

"""Make one replica of the yardstick: plain text-to-image from class prompts, nothing learned from
the real images.
"""

import sys

from stages import run
from truelike.config import load_params
from truelike.paths import NAIVE, TRAIN
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
        generator=params.generator,
        real=TRAIN,
    )
    synthesize(job, replica, NAIVE / str(replica))


if __name__ == "__main__":
    run("naive", main)

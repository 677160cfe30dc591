"""Make one replica of the baseline: plain text-to-image from class prompts, nothing learned from
the real images.
"""

from stages import numbered, run
from truelike.config import load_params
from truelike.paths import NAIVE
from truelike.synthesis.jobs import naive_job
from truelike.synthesis.run import synthesize


def main() -> None:
    params = load_params()
    replica = numbered("synthesize.replicas")
    synthesize(naive_job(params), replica, NAIVE / str(replica))


if __name__ == "__main__":
    run("naive", main)

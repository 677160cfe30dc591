"""Make one replica: a synthetic image per real one by caption, style, adapter and latent prior (RF,
CiP, BT).
"""

from stages import numbered, run
from truelike.config import load_params
from truelike.paths import SYNTHETIC
from truelike.synthesis.jobs import replica_job
from truelike.synthesis.run import synthesize


def main() -> None:
    params = load_params()
    replica = numbered("synthesize.replicas")
    synthesize(replica_job(params), replica, SYNTHETIC / str(replica))


if __name__ == "__main__":
    run("synthesize", main)

"""Make one replica: a synthetic image per real one by caption, style, adapter and latent prior (RF, CiP, BT)."""

import sys
from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.synthesis.run import Job, synthesize


def main() -> None:
    params = load_params()
    replica = int(sys.argv[1])
    job = Job(
        stage="synthesize",
        generator=params.models.generator,
        dtype=params.models.dtype,
        prompts=params.prompts,
        settings=params.synthesize,
        visual_guidance=params.visual_guidance,
        real=Path("outputs/real/train"),
        captions=Path("outputs/captions.parquet"),
        features=Path("outputs/features.parquet"),
        style=Path("outputs/style"),
        adapter=Path("outputs/adapter"),
    )
    synthesize(job, replica, Path("outputs/synthetic") / str(replica))


if __name__ == "__main__":
    run("synthesize", main)

"""Adapt the generator to the data set: LoRA by distribution matching (RF, arXiv 2310.10402)."""

from pathlib import Path

from stages import run
from truelike.adaptation.lora import adapt
from truelike.config import load_params

OUTPUTS = Path("outputs")


def main() -> None:
    params = load_params()
    adapt(
        params.adapt,
        prompts=params.prompts,
        visual_guidance=params.visual_guidance,
        generator=params.models.generator,
        dtype=params.models.dtype,
        real=OUTPUTS / "real" / "train",
        captions=OUTPUTS / "captions.parquet",
        features=OUTPUTS / "features.parquet",
        style=OUTPUTS / "style",
        out=OUTPUTS / "adapter",
    )


if __name__ == "__main__":
    run("adapt", main)

"""Adapt the generator to the data set: LoRA by distribution matching (RF, arXiv 2310.10402)."""

from stages import run
from truelike.adaptation.lora import adapt
from truelike.config import load_params
from truelike.paths import ADAPTER, CAPTIONS, FEATURES, STYLE, TRAIN


def main() -> None:
    params = load_params()
    adapt(
        params.adapt,
        prompts=params.prompts,
        visual_guidance=params.visual_guidance,
        generator=params.generator,
        real=TRAIN,
        captions=CAPTIONS,
        features=FEATURES,
        style=STYLE,
        out=ADAPTER,
    )


if __name__ == "__main__":
    run("adapt", main)

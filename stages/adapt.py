"""Adapt the generator to the data set: LoRA by distribution matching (RF, arXiv 2310.10402)."""

from stages import run
from truelike.adaptation.lora import AdaptInputs, adapt
from truelike.config import load_params
from truelike.paths import ADAPTER, CAPTIONS, FEATURES, STYLE, TRAIN


def main() -> None:
    params = load_params()
    inputs = AdaptInputs(TRAIN, CAPTIONS, FEATURES, STYLE)
    guidance = params.visual_guidance
    adapt(params.adapt, params.prompts, guidance, params.generator, inputs, ADAPTER)


if __name__ == "__main__":
    run("adapt", main)

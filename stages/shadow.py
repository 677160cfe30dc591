"""Run a shadow of the pipeline on its half of the real training images, for membership inference
(LiRA, RF).
"""

import pandas as pd

from stages import numbered, run
from truelike.config import load_params
from truelike.paths import CAPTIONS, FEATURES, HALVES, SHADOWS, TRAIN
from truelike.privacy.shadows import Pipeline, run_shadow


def main() -> None:
    params = load_params()
    number = numbered("privacy.shadows")
    pipeline = Pipeline(
        prompts=params.prompts,
        visual_guidance=params.visual_guidance,
        invert=params.invert,
        adapt=params.adapt,
        synthesize=params.synthesize,
        select=params.select,
        train=params.train,
        arms=params.privacy.arms,
        generator=params.accelerated,
        encoder=params.encoder,
        classifier=params.models.classifier,
    )
    halves = pd.read_parquet(HALVES)
    run_shadow(
        number,
        pipeline,
        halves["key"][halves["shadow"] == number].tolist(),
        real=TRAIN,
        captions=CAPTIONS,
        features=FEATURES,
        out=SHADOWS / str(number),
    )


if __name__ == "__main__":
    run("shadow", main)

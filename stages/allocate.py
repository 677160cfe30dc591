"""Say how many images of each replica every real training image is the source of: as many of each,
or more where they help (Feedback-guided synthesis, 2310.00158; TADA, 2505.21574).
"""

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.paths import ALLOCATION, TRAIN
from truelike.synthesis.allocation import write_allocations


def main() -> None:
    params = load_params()
    settings, images, judged = params.synthesize, ImageSet(TRAIN), None
    if settings.is_judged:
        from truelike.synthesis.judging import judge_out_of_fold  # no other policy needs torch

        classifier, optimization = params.models.classifier, params.train.optimization
        judged = judge_out_of_fold(images, classifier, optimization, settings.judge, settings.seed)
    write_allocations(images, settings, judged, ALLOCATION)


if __name__ == "__main__":
    run("allocate", main)

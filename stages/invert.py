"""Learn the style of the data set, or of each class, as a new word (dataset style inversion, BT, arXiv 2403.19866)."""

from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.data.imageset import ImageSet
from truelike.diffusion.inversion import learn_style, write_style
from truelike.diffusion.loop import loop_fingerprint
from truelike.models.generator import open_generator
from truelike.scratch import publish, scratch


def main() -> None:
    params = load_params()
    real = ImageSet(Path("outputs/real/train"))
    settings = params.invert
    key = loop_fingerprint([settings.model_dump(), params.models.dtype], params.models.generator, real.folder)
    with scratch("invert", key) as folder:
        learned = None
        if settings.enabled:
            pipeline = open_generator(params.models.generator, "float32")
            learned = learn_style(pipeline, real, settings, params.models.dtype, folder)
        publish(write_style(folder, settings, real.class_names, learned), Path("outputs/style"))


if __name__ == "__main__":
    run("invert", main)

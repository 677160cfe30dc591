"""Adapt the generator to the data set: LoRA by distribution matching (RF, arXiv 2310.10402)."""

from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.data.imageset import ImageSet
from truelike.data.tables import read_captions, read_features
from truelike.diffusion.adaptation import learn_adapter, write_adapter, write_no_adapter
from truelike.diffusion.conditioning import guidance_vectors
from truelike.diffusion.loop import loop_fingerprint
from truelike.models.generator import add_style, open_generator
from truelike.prompts import training_prompts
from truelike.scratch import publish, scratch

REAL, STYLE = Path("outputs/real/train"), Path("outputs/style")
CAPTIONS, FEATURES = Path("outputs/captions.parquet"), Path("outputs/features.parquet")


def main() -> None:
    params = load_params()
    settings, guidance = params.adapt, params.visual_guidance
    used = [settings.model_dump(), params.prompts.model_dump(), guidance.model_dump(), params.models.dtype]
    key = loop_fingerprint(used, params.models.generator, REAL, CAPTIONS, FEATURES, STYLE)
    with scratch("adapt", key) as folder:
        if settings.enabled:
            real = ImageSet(REAL)
            pipeline = open_generator(params.models.generator, "float32")
            style = add_style(pipeline, STYLE)
            features = read_features(FEATURES, real.keys)
            vectors = guidance_vectors(pipeline, features, real.labels, guidance)
            captions = read_captions(CAPTIONS, real.keys)
            names = real.index["class_name"].tolist()
            styles = [style.text(name) for name in names]
            prompts = training_prompts(pipeline.tokenizer, params.prompts, real.keys, names, captions, styles)
            learn_adapter(pipeline, real, prompts, vectors, settings, params.models.dtype, folder)
            files = write_adapter(folder, pipeline, settings, style.fingerprint)
        else:
            files = write_no_adapter(folder)
        for file in files:
            publish([file], Path("outputs/adapter") / file.parent.relative_to(folder))


if __name__ == "__main__":
    run("adapt", main)

"""Embed every real training image with CLIP, for visual guidance (RF, arXiv 2310.10402) and
selection.
"""

from stages import run
from truelike.config import load_params
from truelike.features.encoder import features, open_encoder
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_features
from truelike.paths import FEATURES, TRAIN


def main() -> None:
    params = load_params()
    images = ImageSet(TRAIN)
    made = map_images(
        images, open_encoder, params.encoder, features, params.embed.batch_size, "embed"
    )
    write_features(FEATURES, images.keys, made["embedding"])


if __name__ == "__main__":
    run("embed", main)

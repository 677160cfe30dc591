"""Embed every real training image with CLIP, for visual guidance (RF, arXiv 2310.10402) and selection."""

from pathlib import Path

from stages import run
from truelike.config import load_params
from truelike.features.encoder import features, open_encoder
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_features


def main() -> None:
    params = load_params()
    images = ImageSet("outputs/real/train")
    encoder, dtype = params.models.encoder, params.models.dtype
    made = map_images(images, open_encoder, encoder, dtype, features, params.embed.batch_size, "embed")
    write_features(Path("outputs/features.parquet"), images.keys, made["embedding"])


if __name__ == "__main__":
    run("embed", main)

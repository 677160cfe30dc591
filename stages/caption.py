"""Caption every real training image with a model or from a file, or with nothing (CiP, arXiv 2307.08526)."""

from pathlib import Path

from stages import run
from truelike.captions import caption_images, no_captions, read_caption_file
from truelike.config import load_params
from truelike.data.imageset import ImageSet
from truelike.data.tables import write_table
from truelike.models.captioner import open_captioner


def main() -> None:
    params = load_params()
    caption = params.caption
    images = ImageSet("outputs/real/train")
    if caption.by == "model":
        captioner = open_captioner(params.models.captioner, params.models.dtype)
        table = caption_images(images, captioner, caption.max_tokens, caption.batch_size)
    elif caption.by == "file":
        table = read_caption_file(images, params.models.captioner)
    else:
        table = no_captions(images)
    write_table(Path("outputs/captions.parquet"), table)


if __name__ == "__main__":
    run("caption", main)

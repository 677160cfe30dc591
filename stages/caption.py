"""Caption every real training image, or what was drawn for it, by model, from a file, or not (CiP,
2307.08526).
"""

from stages import run
from truelike.captioning.captions import (
    caption_images,
    no_captions,
    read_caption_file,
    rewrite_captions,
)
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.paths import CAPTIONS


def main() -> None:
    params = load_params()
    caption = params.caption
    images = ImageSet(caption.images)
    if caption.by == "model":
        table = caption_images(images, params.captioner, caption.max_tokens, caption.batch_size)
    elif caption.by == "file":
        table = read_caption_file(images, params.captioner.path)
    else:
        table = no_captions(images)
    if caption.rewrite.count:
        table = rewrite_captions(table, params.rewriter, caption.rewrite)
    write_table(CAPTIONS, table)


if __name__ == "__main__":
    run("caption", main)

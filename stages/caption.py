"""Caption every real training image, or what was drawn for it, by model, from a file, or not (CiP,
2307.08526).
"""

import json
import sys

from stages import run
from truelike.captioning.captions import (
    caption_images,
    no_captions,
    read_caption_file,
    rewrite_captions,
)
from truelike.captioning.contradictions import settle_contradictions
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.paths import CAPTION_SUMMARY, CAPTIONS


def main() -> None:
    params = load_params()
    caption = params.caption
    images = ImageSet(caption.images)
    if caption.by == "model":
        table = caption_images(
            images, params.captioner, caption.max_tokens, caption.batch_size, caption.instruction
        )
    elif caption.by == "file":
        table = read_caption_file(images, params.captioner.path)
    else:
        table = no_captions(images)
    table, summary = settle_contradictions(table, images, params.captioner, caption)
    if caption.rewrite.count:
        table = rewrite_captions(table, params.rewriter, caption.rewrite)
    write_table(CAPTIONS, table)
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    CAPTION_SUMMARY.write_text(f"{text}\n", encoding="utf-8")
    print(
        f"caption: {summary['contradicting']} of {summary['captions']} captions name another class "
        f"than the label; {summary['recaptioned']} made again, {summary['dropped']} dropped",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run("caption", main)

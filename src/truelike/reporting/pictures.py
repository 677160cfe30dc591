"""Contact sheets and thumbnails: many small images at a glance."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from truelike.imageset.writing import encode_png
from truelike.reporting.style import oneline

INK = (31, 35, 40)
PAPER = (255, 255, 255)
GAP = 4
MARGIN = 12
FONT_SIZE = 14
MAX_LABEL = 240  # pixels


def scale_to(pixels: np.ndarray, side: int) -> Image.Image:
    """Fit an image into `side` pixels: small ones grow by whole factors, nearest neighbour, large
    ones shrink smoothly.

    `pixels` uint8 of shape (H, W, 3).
    """
    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest <= side:
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (
        max(1, round(image.width * side / longest)),
        max(1, round(image.height * side / longest)),
    )
    return image.resize(size, Image.Resampling.LANCZOS)


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str] = (), side: int = 64
) -> Image.Image:
    """Draw rows of images, each with its label to the left, and optional column headings above.

    `rows` are (label, images of uint8 HWC); rows may differ in length. `side` is the size of a cell
    in pixels. The result is an RGB image on white.
    """
    # Pillow's own font lacks most letters beyond ASCII, matplotlib's has those of most alphabets.
    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font, small = (ImageFont.truetype(str(file), size) for size in (FONT_SIZE, FONT_SIZE - 3))
    headings = [_shorten(name, small, side + GAP) for name in columns]
    rows = [(_shorten(label, font, MAX_LABEL), images) for label, images in rows]
    left = MARGIN + round(max((font.getlength(label) for label, _ in rows), default=0)) + MARGIN
    top = MARGIN + (FONT_SIZE + GAP if headings else 0)
    count = max((len(images) for _, images in rows), default=0)
    sheet = Image.new(
        "RGB",
        (left + count * (side + GAP) + MARGIN, top + len(rows) * (side + GAP) + MARGIN),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        draw.text(
            (left + column * (side + GAP) + side / 2, top - GAP), heading, INK, small, anchor="ms"
        )
    for number, (label, images) in enumerate(rows):
        y = top + number * (side + GAP)
        draw.text((left - MARGIN, y + side / 2), label, INK, font, anchor="rm")
        for column, pixels in enumerate(images):
            tile = scale_to(pixels, side)
            x = left + column * (side + GAP)
            sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = oneline(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def data_uri(pixels: np.ndarray, side: int = 128) -> str:
    """Encode an image for embedding in HTML: PNG as it is up to `side` pixels, a JPEG thumbnail of
    `side` above.
    """
    if max(pixels.shape[:2]) <= side:
        return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    buffer = io.BytesIO()
    scale_to(pixels, side).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Picture files of every kind become the pixels a person would expect."""

import io

import numpy as np
import pytest
from PIL import Image

from truelike.runtime.errors import TruelikeError
from truelike.sources.decode import decode_rgb, to_square


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, kind: str = "PNG", **options) -> np.ndarray:
    return np.asarray(decode_rgb(encoded(image, kind, **options), "picture"))


def test_transparency_is_put_on_white():
    half_red = decoded(Image.new("RGBA", (2, 2), (255, 0, 0, 128)))
    assert half_red[0, 0].tolist() == [255, 127, 127]
    assert decoded(Image.new("LA", (2, 2), (0, 0)))[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 200, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    assert decoded(palette, transparency=1)[0].tolist() == [[0, 0, 200], [255, 255, 255]]


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decoded(Image.fromarray(deep), kind)[0, :, 0].tolist() == [0, 1, 128, 255]
    wide = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert decoded(wide, "TIFF")[0, :, 0].tolist() == [0, 255]


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(TruelikeError, match="picture: grey values outside"):
        decoded(Image.fromarray(np.array([[0, 65536]], np.int32)), "TIFF")
    with pytest.raises(TruelikeError, match="picture: floating-point"):
        decoded(Image.fromarray(np.array([[0, 0.5]], np.float32)), "TIFF")


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = decoded(image, exif=exif)
    assert turned.shape == (4, 2, 3)
    assert turned[0, 1].tolist() == [255, 255, 255]


def test_cmyk_palette_bilevel_and_animation():
    assert decoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")[0, 0].tolist() == [
        255,
        0,
        0,
    ]
    assert decoded(Image.new("RGB", (2, 2), (10, 20, 30)).convert("P"), "GIF").shape == (2, 2, 3)
    assert decoded(Image.new("1", (2, 2), 1)).min() == 255
    first, second = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    assert decoded(first, "GIF", save_all=True, append_images=[second])[0, 0].tolist() == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"no image", lambda d: b""]
)
def test_damaged_files_are_named(damage):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(TruelikeError, match=r"some/file\.png: cannot be read as an image"):
        decode_rgb(damage(encoded(Image.fromarray(noise))), "some/file.png")


@pytest.mark.parametrize(
    "limit", [10, 3]
)  # Pillow warns above its limit and raises above twice that
def test_decompression_bombs_are_refused(monkeypatch, limit):
    data = encoded(Image.new("RGB", (4, 4)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(TruelikeError, match=f"bomb.png: more than {limit} pixels"):
        decode_rgb(data, "bomb.png")


def test_pad_keeps_a_nearly_large_enough_image_as_it_is():
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[5:20, 5:20] = 200
    square = to_square(Image.fromarray(pixels), 32, "pad")
    assert (square[2:30, 2:30] == pixels).all()
    border = square.copy()
    border[2:30, 2:30] = 0
    assert not border.any()


def test_pad_fills_with_the_common_colour_of_the_border():
    image = Image.new("RGB", (20, 40), (250, 240, 230))
    image.paste((0, 0, 0), (5, 5, 15, 40))
    square = to_square(image, 40, "pad")
    assert (square[:, :10] == (250, 240, 230)).all()
    assert (square[:, 10:30] == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("size", "content"), [((16, 8), (32, 16)), ((4, 4), (32, 32)), ((64, 16), (32, 8))]
)
def test_pad_scales_the_longer_side(size, content):
    image = Image.new("RGB", size, "white")
    image.putpixel((0, 0), (254, 255, 255))
    square = to_square(image, 32, "pad")
    assert square.shape == (32, 32, 3)
    assert (square[0, 0] == 255).all() or content == (32, 32)


def test_crop_takes_the_middle_and_stretch_takes_all():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255
    assert to_square(Image.fromarray(pixels), 8, "crop").min() == 255
    stretched = to_square(Image.fromarray(pixels), 8, "stretch")
    assert stretched.shape == (8, 8, 3)
    assert stretched[:, 0].max() < 60
    assert stretched[:, 4].min() > 200

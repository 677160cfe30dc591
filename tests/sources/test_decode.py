"""Picture files of every kind become the pixels a person would expect."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from truelike.runtime.errors import TruelikeError
from truelike.sources import decode as decoding
from truelike.sources.decode import PICTURES, decode, decode_rgb, to_square


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"x: cannot be read as an image \(the file is empty\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
    ],
)
def test_files_that_hold_no_picture_say_what_they_are(data, message):
    with pytest.raises(TruelikeError, match=message):
        decode_rgb(data, "x")


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


@pytest.mark.parametrize("resolution", [8, 32, 33])
@pytest.mark.parametrize("square", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 700), (600, 6), (700, 1), (1, 1), (33, 1), (5000, 2)])
def test_a_strip_keeps_at_least_a_line(size, square, resolution):
    image = Image.new("RGB", size, "black")
    made = to_square(image, resolution, square)
    assert made.shape == (resolution, resolution, 3)
    assert not made.any()


def test_a_strip_is_a_thin_line_in_the_middle():
    image = Image.new("RGB", (600, 6), "black")
    image.paste("red", (300, 0, 360, 6))
    made = to_square(image, 32, "pad")
    assert (made[15, 17:18, 0] > 200).all()
    assert not made[[14, 16]].any()
    assert not made[:, :10].any()


DEEP_CELLS = np.array([[100, 1100], [2100, 4095]], np.uint16)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        ("full", [[0, 4], [8, 16]]),
        ("minmax", [[0, 64], [128, 255]]),
    ],
)
def test_depth_of_twelve_bits_in_sixteen(depth, expected):
    for kind in ("PNG", "TIFF"):
        image, used = decode(encoded(Image.fromarray(DEEP_CELLS), kind), "cells", depth)
        assert np.asarray(image)[:, :, 0].tolist() == expected
        assert used == pytest.approx(3995 / 65535)


def test_percentiles_are_not_moved_by_one_hot_pixel():
    cells = np.full((100, 100), 1000, np.uint16)
    cells[:50] = 2000
    cells[0, 0] = 65535
    stretched = np.asarray(decode_rgb(encoded(Image.fromarray(cells)), "cells", "percentile"))
    assert set(np.unique(stretched)) == {0, 255}
    assert np.asarray(decode_rgb(encoded(Image.fromarray(cells)), "cells", "minmax")).max() == 255
    assert (stretched[50:] == 0).all()
    assert (stretched[:50] == 255).all()


@pytest.mark.parametrize("depth", ["minmax", "percentile"])
def test_a_flat_deep_image_stays_flat(depth):
    flat = Image.fromarray(np.full((4, 4), 1234, np.uint16))
    assert not np.asarray(decode_rgb(encoded(flat), "flat", depth)).any()


def test_pixels_of_any_range_can_be_stretched():
    floats = Image.fromarray(np.array([[-1.5, 0, 1.5]], np.float32))
    stretched = np.asarray(decode_rgb(encoded(floats, "TIFF"), "floats", "minmax"))
    assert stretched[0, :, 0].tolist() == [0, 128, 255]
    wide = Image.fromarray(np.array([[0, 1_000_000]], np.int32))
    assert np.asarray(decode_rgb(encoded(wide, "TIFF"), "wide", "minmax"))[0, 1, 0] == 255
    odd = encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(TruelikeError, match="odd: pixels that are no finite numbers"):
        decode_rgb(odd, "odd", "minmax")


def test_sixteen_bit_colour_of_little_range_is_noticed():
    data = encoded(Image.new("RGB", (2, 2), (3, 9, 12)))
    assert decode(data, "shallow", "full")[1] is None
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # a pixel of three times 16 bits
    row = zlib.compress(b"\0" + struct.pack(">3H", 256, 512, 4095))
    deep = b"\x89PNG\r\n\x1a\n"
    for body in (b"IHDR" + header, b"IDAT" + row, b"IEND"):
        deep += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    image, used = decode(deep, "deep", "full")
    assert np.asarray(image)[0, 0].tolist() == [1, 2, 15]
    assert used == pytest.approx(14 / 255)


def test_transparent_sixteen_bit_grey_is_put_on_white():
    deep = Image.fromarray(np.array([[0, 30000, 65535]], np.uint16))
    assert decoded(deep, transparency=30000)[0, :, 0].tolist() == [0, 255, 255]
    stretched = decode_rgb(encoded(deep, transparency=0), "deep", "minmax")
    assert np.asarray(stretched)[0, :, 0].tolist() == [255, 0, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once(kind, orientation):
    """Pixels by hand: red marks the corner that orientation moves to the place of the first."""
    stored = Image.new("RGB", (24, 16), "black")
    stored.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = decoded(stored, kind, exif=exif, **options)
    wide, corner = {
        1: (True, (0, 0)),
        2: (True, (0, -1)),
        3: (True, (-1, -1)),
        4: (True, (-1, 0)),
        5: (False, (0, 0)),
        6: (False, (0, -1)),
        7: (False, (-1, -1)),
        8: (False, (-1, 0)),
    }[orientation]
    assert shown.shape == ((16, 24, 3) if wide else (24, 16, 3))
    red = shown[..., 0] > 128
    assert red[corner]
    assert red.sum() == 64


def test_exif_that_cannot_be_written_back_is_only_read():
    """Make is stored as a rational number: Pillow reads it, and fails to write it as a word."""
    entries = struct.pack("<HHHII", 2, 0x010F, 5, 1, 38) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    block = b"II*\0\x08\0\0\0" + entries + b"\0\0\0\0" + struct.pack("<II", 1, 2)
    data = encoded(Image.new("RGB", (4, 2), "black"), "JPEG", exif=b"Exif\0\0" + block)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(AttributeError):
        ImageOps.exif_transpose(image)
    assert decode_rgb(data, "photo").size == (2, 4)


def test_exif_that_cannot_be_read_turns_nothing(monkeypatch):
    def broken(image):
        raise AttributeError("no such tag")

    data = encoded(Image.new("RGB", (4, 2)))
    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert decode_rgb(data, "photo").size == (4, 2)


def heic() -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 32), (200, 30, 40))).save(buffer, quality=90)
    return buffer.getvalue()


def test_heic_photos_are_read_with_the_extra_and_named_without(monkeypatch):
    data = heic()
    pixels = np.asarray(decode_rgb(data, "IMG_1.HEIC"))
    assert pixels.shape == (32, 64, 3)
    assert np.abs(pixels.astype(int) - (200, 30, 40)).max() < 20
    monkeypatch.setattr(decoding, "pillow_heif", None)
    monkeypatch.setattr(Image, "open", lambda *_: 1 / 0)
    with pytest.raises(
        TruelikeError, match=r"IMG_1\.HEIC: a HEIC photo; `pip install -c \S+ -e '\.\[heic"
    ):
        decode_rgb(data, "IMG_1.HEIC")


def test_every_suffix_that_pillow_reads_as_a_picture_is_one_of_ours():
    Image.init()
    read = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert {".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", ".heic"} <= PICTURES
    assert read | {".mpo"} >= PICTURES  # which Pillow opens as JPEG
    assert not PICTURES & {".pdf", ".h5", ".hdf", ".mpg", ".mpeg", ".ps", ".eps", ".im", ".wmf"}


FUZZED = (
    *("AVIF", "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI"),
    *("SGI", "TGA", "TIFF", "WEBP"),
)


def sample(kind: str) -> bytes:
    side = 32 if kind == "ICNS" else 12
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind)


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    Image.init()
    deep = Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "maker"
    photo = Image.new("RGB", (12, 8), "red")
    return {kind: sample(kind) for kind in FUZZED} | {
        "deep TIFF": encoded(deep, "TIFF", compression="tiff_lzw"),
        "deep PNG": encoded(deep),
        "EXIF JPEG": encoded(photo, "JPEG", exif=exif),
        "EXIF TIFF": encoded(photo, "TIFF", exif=exif),
        "HEIC": heic(),
    }


CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.integers(0, 10**6), changes=CHANGES, cut=st.floats(0.3, 1.3), header=st.booleans())
def test_a_damaged_file_of_any_format_raises_nothing_but_our_error(
    samples, choice, changes, cut, header
):
    kind = sorted(samples)[choice % len(samples)]
    damaged = bytearray(samples[kind])
    reach = min(len(damaged), 96) if header else len(damaged)
    for place, value in changes:
        damaged[int(place * reach)] = value
    data = bytes(damaged[: int(len(damaged) * cut)])
    for depth in ("full", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            try:
                image = decode_rgb(data, "a/picture", depth)
            except TruelikeError as error:
                message = str(error)
            else:
                message = f"a/picture: {image.mode} {to_square(image, 8, 'pad').shape}"
                assert image.mode == "RGB"
        assert message.startswith("a/picture: ")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"BM", b"DDS ", b"GIF89a", b"\xff\xd8\xff", b"II*\0", b"MM\0*"]),
    st.binary(),
)
def test_bytes_that_only_begin_like_a_picture(head, rest):
    with pytest.raises(TruelikeError, match="a/picture: "):
        decode_rgb(head + rest, "a/picture")

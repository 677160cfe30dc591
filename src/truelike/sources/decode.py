"""One picture file of any kind to one square of RGB pixels."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from truelike.runtime.errors import TruelikeError
from truelike.sources.settings import Data

SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode_rgb(data: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB, the way a person sees it.

    EXIF orientation is applied, transparency is put on white, 16-bit grey is scaled (65535 is
    white), CMYK and the like are converted, of an animation the first frame is taken. `name` is
    what errors call the file. Raises TruelikeError for a file that is no image, is cut short, has
    pixels of unlimited range or more of them than is safe to decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image), name)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TruelikeError(
            f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as unsafe to decode; "
            "make it smaller"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise TruelikeError(
            f"{name}: cannot be read as an image ({error}); repair or remove it"
        ) from None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise TruelikeError(
                f"{name}: grey values outside 0 to 65535; convert it to 8 or 16 bits"
            )
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise TruelikeError(
            f"{name}: floating-point pixels, whose range is not known; convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground.convert("RGB")
    return image.convert("RGB")


def to_square(image: Image.Image, resolution: int, square: str) -> np.ndarray:
    """Make an RGB image a square of `resolution` pixels, uint8 (resolution, resolution, 3).

    ``crop`` scales the shorter side and cuts the middle out; ``stretch`` ignores the aspect ratio;
    ``pad`` scales the longer side and fills around the centred image with the most common colour of
    its border. An image that ``pad`` would enlarge to less than twice its size keeps its size
    instead, so 28 x 28 pixels stay as they are in the middle of 32 x 32. All scaling is Lanczos.
    """
    size = (resolution, resolution)
    if square == "crop":
        return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))
    if square == "stretch":
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    if not resolution / 2 < max(image.size) <= resolution:
        image = ImageOps.contain(image, size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, _border_colour(np.asarray(image)))
    canvas.paste(image, ((resolution - image.width) // 2, (resolution - image.height) // 2))
    return np.asarray(canvas)


def _border_colour(pixels: np.ndarray) -> tuple[int, ...]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colours, counts = np.unique(border, axis=0, return_counts=True)
    return tuple(int(value) for value in colours[counts.argmax()])


def square_pixels(data: bytes, name: str, settings: Data) -> np.ndarray:
    """Decode an image file and make it square as the settings say, uint8 (resolution, resolution,
    3).
    """
    return to_square(decode_rgb(data, name), settings.resolution, settings.square)

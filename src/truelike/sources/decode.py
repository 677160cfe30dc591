"""One picture file of any kind to one square of RGB pixels."""

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from truelike.runtime.errors import TruelikeError
from truelike.sources.settings import Data, Depth

try:
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

HEIF = frozenset({".heic", ".heif", ".hif"})
PICTURES = HEIF | {  # the suffixes of files that are read; docs/data.md lists them
    *(".apng", ".avif", ".bmp", ".dds", ".dib", ".gif", ".icns", ".ico", ".j2k", ".jfif", ".jp2"),
    *(".jpe", ".jpeg", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm"),
    *(".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
}
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
DEEP = (*SIXTEEN_BIT, "F")
DEEP_COLOUR = "of 16-bit colour the upper 8 bits are read"
PERCENTILES = (1, 99)
LFS = b"version https://git-lfs.github.com/"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_rgb(data: bytes, name: str, depth: Depth = "full") -> Image.Image:
    """Decode an image file to RGB, the way a person sees it.

    EXIF orientation is applied, transparency is put on white, grey of 16 bits and more is scaled to
    8 as `depth` says (full: 65535 is white; minmax, percentile: the image's own range), CMYK and
    the like are converted, of an animation the first frame is taken. `name` is what errors call
    the file. Raises TruelikeError, and nothing else, for a file that is no image, is cut short, has
    pixels of unlimited range or more of them than is safe to decode.
    """
    return decode(data, name, depth)[0]


def decode(data: bytes, name: str, depth: Depth) -> tuple[Image.Image, float | None]:
    """What `decode_rgb` returns, and the share of 16 bits' range that is used; None for 8 bits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, without the file's name
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                has_deep_colour = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
                image.load()
                upright = _upright(image)
                if 0 in upright.size:
                    raise ValueError("it has no pixels")
                if upright.mode in DEEP:
                    return _grey_to_rgb(upright, name, depth)
                rgb = _to_rgb(upright)
                return rgb, _used_colours(rgb) if has_deep_colour else None
    except TruelikeError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TruelikeError(
            f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as unsafe to decode; "
            "make it smaller"
        ) from None
    except Exception as error:  # decoders of damaged files raise errors of every kind
        raise TruelikeError(f"{name}: {_why_unreadable(data, error)}") from None


def _why_unreadable(data: bytes, error: Exception) -> str:
    if _is_heif(data) and pillow_heif is None:
        return (
            "a HEIC photo; `pip install -c constraints.txt -e '.[heic]'` reads it, or convert it "
            "to JPEG"
        )
    if data.startswith(LFS):
        return "a Git LFS pointer, not the image itself; get it with `git lfs pull`"
    why: object = error or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        why = "no format that is known" if data else "the file is empty"
    return f"cannot be read as an image ({why}); repair or remove it"


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says; EXIF that cannot be read says nothing."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a viewer shows such a photo too
        turn = None
    return image if turn is None else image.transpose(turn)


def _grey_to_rgb(image: Image.Image, name: str, depth: Depth) -> tuple[Image.Image, float]:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise TruelikeError(f"{name}: pixels that are no finite numbers; repair or remove it")
    clear = _transparent(values, image.info.get("transparency"))
    seen = values[~clear] if clear.any() and not clear.all() else values
    low, high = float(seen.min()), float(seen.max())
    if depth == "full":
        if image.mode == "F" or low < 0 or high > 65535:
            what = (
                "floating-point pixels" if image.mode == "F" else "grey values outside 0 to 65535"
            )
            raise TruelikeError(
                f"{name}: {what}, whose range is not known; convert it to 8 or 16 bits, or set "
                "data.depth (ood.NAME.depth) to minmax or percentile"
            )
        grey = (values.astype(np.int64) + 128) // 257
    else:
        if depth == "percentile":
            low, high = (float(value) for value in np.percentile(seen, PERCENTILES))
        scaled = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
        grey = np.round(255 * np.clip(scaled, 0, 1))
    grey = np.where(clear, 255, grey).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB"), float(seen.max() - seen.min()) / 65535


def _transparent(values: np.ndarray, colour: object) -> np.ndarray:
    return values == colour if isinstance(colour, int) else np.zeros(values.shape, bool)


def _used_colours(image: Image.Image) -> float:
    values = np.asarray(image)
    return float(int(values.max()) - int(values.min())) / 255


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image.convert("RGBA"))
        return background.convert("RGB")
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
        short = max(1, round(min(image.size) / max(image.size) * resolution))
        fitted = (resolution, short) if image.width >= image.height else (short, resolution)
        image = image.resize(fitted, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, _border_colour(np.asarray(image)))
    canvas.paste(image, ((resolution - image.width) // 2, (resolution - image.height) // 2))
    return np.asarray(canvas)


def _border_colour(pixels: np.ndarray) -> tuple[int, ...]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    packed = border.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, counts = np.unique(packed, return_counts=True)
    return tuple(int(colours[counts.argmax()]).to_bytes(3, "big"))


def square_pixels(data: bytes, name: str, settings: Data) -> np.ndarray:
    """Decode an image file and make it square as the settings say, uint8 (resolution, resolution,
    3).
    """
    return to_square(decode_rgb(data, name, settings.depth), settings.resolution, settings.square)

"""Corruptions of images at five severity levels, after CIFAR-10-C.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, with the constants that its authors published for 32 pixels. Blur grows
with the image's side beyond that (ours).
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SEVERITIES = (1, 2, 3, 4, 5)
CONSTANTS = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation, of a range of 0 to 1
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation, in 1/32 of the side
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # of the contrast there is
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the HSV value
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # of the side
    "jpeg": (80, 65, 58, 50, 40),  # quality
}


def corrupt(pixels: np.ndarray, kind: str, severity: int, seeds: np.ndarray) -> np.ndarray:
    """Corrupt images, uint8 of shape (N, H, W, 3), each by itself: the same pixels and seed give
    the same result.

    `kind` is a key of CONSTANTS, `severity` 1 to 5; `seeds` (N,) are integers of 0 or more, used by
    ``noise`` alone.
    """
    constant = CONSTANTS[kind][severity - 1]
    if kind == "noise":
        draws = [
            np.random.default_rng(int(seed)).standard_normal(pixels.shape[1:]) for seed in seeds
        ]
        return _to_bytes(pixels / 255 + constant * np.reshape(draws, pixels.shape))
    return CHANGES[kind](pixels, constant)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _blur(pixels: np.ndarray, width: float) -> np.ndarray:
    sigma = width * max(pixels.shape[1:3]) / 32
    return _to_bytes(gaussian_filter(pixels / 255, (0, sigma, sigma, 0), mode="nearest"))


def _contrast(pixels: np.ndarray, share: float) -> np.ndarray:
    values = pixels / 255
    means = values.mean((1, 2), keepdims=True)
    return _to_bytes((values - means) * share + means)


def _brightness(pixels: np.ndarray, added: float) -> np.ndarray:
    """Raise the largest channel and scale the others with it, so hue and saturation stay; black
    becomes grey.
    """
    values = pixels / 255
    value = values.max(-1, keepdims=True)
    raised = np.minimum(value + added, 1)
    return _to_bytes(np.where(value > 0, values * raised / np.where(value > 0, value, 1), raised))


def _pixelate(pixels: np.ndarray, share: float) -> np.ndarray:
    height, width = pixels.shape[1:3]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    box = Image.Resampling.BOX
    return _each(pixels, lambda image: image.resize(small, box).resize((width, height), box))


def _jpeg(pixels: np.ndarray, quality: float) -> np.ndarray:
    def compress(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(quality))
        return Image.open(buffer)

    return _each(pixels, compress)


def _each(pixels: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    changed = [np.asarray(change(Image.fromarray(image))) for image in pixels]
    return np.reshape(np.array(changed, np.uint8), pixels.shape)


CHANGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}

"""Low-level statistics of images: what they look like before one asks what they show."""

import numpy as np

STATISTICS = ("red", "green", "blue", "contrast", "saturation", "frequency", "sharpness")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SMALL = 1e-8


def low_level(pixels: np.ndarray) -> np.ndarray:
    """STATISTICS of uint8 images (N, H, W, 3): float64 of shape (N, 7).

    Means of red, green and blue; contrast, the standard deviation of the luminance; saturation, the
    mean distance between the largest and the smallest channel (all 0 to 1); frequency, the
    logarithm of the share of spectral energy, but for the mean, above half of the Nyquist
    frequency; sharpness, the logarithm of the Laplacian's variance.
    """
    values = pixels.astype(np.float64) / 255
    gray = values @ LUMA
    height, width = gray.shape[1:]
    energy = np.abs(np.fft.fft2(gray - gray.mean((1, 2), keepdims=True))) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    share = (energy * (radius > 0.25)).sum((1, 2)) / (energy.sum((1, 2)) + SMALL)
    inner = gray[:, 1:-1, 1:-1]
    laplacian = (
        gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:] - 4 * inner
    )
    saturation = (values.max(3) - values.min(3)).mean((1, 2))
    columns = [*values.mean((1, 2)).T, gray.std((1, 2)), saturation]
    return np.stack(
        [*columns, np.log(share + SMALL), np.log(laplacian.var((1, 2)) + SMALL)], axis=1
    )


def standardised_differences(
    real: np.ndarray, fake: np.ndarray, counts: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Differences of means in pooled standard deviations (Cohen's d) of each column, fake less
    real: (B, S).

    `real` (N, S), `fake` (M, S); `counts` (B, N) and (B, M), how often each image counts in each of
    B resamples.
    """
    first, second = (_moments(*pair) for pair in zip((real, fake), counts, strict=True))
    return (second[0] - first[0]) / np.sqrt((first[1] + second[1]) / 2 + SMALL)


def _moments(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = counts.sum(1, keepdims=True)
    mean = counts @ values / total
    return mean, np.clip(counts @ values**2 / total - mean**2, 0, None)

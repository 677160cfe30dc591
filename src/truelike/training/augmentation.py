"""Augmentation of whole batches on their device; every random number comes from one seeded
generator on the CPU.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from truelike.training.settings import Phase

ASPECT = math.log(4 / 3)  # log of the largest aspect ratio of a crop, the usual 3/4 to 4/3


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn uint8 pixels (B, 3, H, W) into float32 of about zero mean and unit deviation."""
    scale = torch.tensor([255 * deviation for deviation in std], device=images.device).view(
        1, -1, 1, 1
    )
    shift = torch.tensor(
        [centre / deviation for centre, deviation in zip(mean, std, strict=True)],
        device=images.device,
    )
    return images / scale - shift.view(1, -1, 1, 1)


def crop_matrices(size: int, crop_scale: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Affine matrices (B, 2, 3) of random resized crops that stay inside the image, half of them
    mirrored.

    `crop_scale` is the smallest share of the area that a crop keeps; 1 turns cropping off.
    """
    if crop_scale < 1:
        area, shape, x, y = torch.rand(4, size, generator=generator)
        area = crop_scale + (1 - crop_scale) * area
        aspect = torch.exp(ASPECT * (2 * shape - 1))
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        left, top = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    else:
        width = height = torch.ones(size)
        left = top = torch.zeros(size)
    if flip:
        width = torch.where(torch.rand(size, generator=generator) < 0.5, -width, width)
    zero = torch.zeros(size)
    return torch.stack(
        [torch.stack([width, zero, left], 1), torch.stack([zero, height, top], 1)], 1
    )


def random_resized_crop(
    images: Tensor, crop_scale: float, flip: bool, generator: torch.Generator
) -> Tensor:
    """Crop, resize back and mirror each image of a float batch (B, 3, H, W) with its own random
    parameters.
    """
    matrices = crop_matrices(len(images), crop_scale, flip, generator).to(images.device)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def mixup(images: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    """Blend a batch with a permutation of itself: x' = w x + (1 - w) x[order], w ~ Beta(alpha,
    alpha).

    Returns the blended batch, the order (B,) and w; the loss is blended in the same way. Zhang et
    al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation 1.
    """
    weight = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    return torch.lerp(images[order], images, weight), order, weight


def cutmix(images: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    """Paste a rectangle of a permutation of a batch into it; the rectangle has the share 1 - w, w ~
    Beta(alpha, alpha).

    Returns the batch, the order (B,) and w, corrected where the border cuts the rectangle; the loss
    is blended by w. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV
    2019, equations 1 and 2.
    """
    side = math.sqrt(1 - rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    rows, columns = (
        _stretch(int(rng.integers(size)), int(size * side), size) for size in images.shape[2:]
    )
    pasted = images.clone()
    pasted[:, :, rows, columns] = images[order][:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, order, 1 - area / images[0, 0].numel()


def _stretch(centre: int, length: int, size: int) -> slice:
    return slice(max(centre - length // 2, 0), min(centre + (length + 1) // 2, size))


def mix(images: Tensor, phase: Phase, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup or cutmix, whichever the phase has; with both, a coin chooses for each batch."""
    if phase.cutmix and (not phase.mixup or rng.random() < 0.5):
        return cutmix(images, phase.cutmix, rng)
    return mixup(images, phase.mixup, rng)

"""Augmentation of whole batches on their device; every random number comes from one seeded
generator on the CPU.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from truelike.training.settings import Optimization, Phase

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue in the luma of ITU-R BT.601
ASPECT = math.log(4 / 3)  # log of the largest aspect ratio of a crop, the usual 3/4 to 4/3


@dataclass(frozen=True)
class Share:
    """The rows of a batch that images are: all, or those of one of several processes, each of which
    draws the random numbers of the whole batch.
    """

    batch: int
    rows: slice = field(default_factory=lambda: slice(None))


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


def crop_matrices(size: int, crop_scale: float, flip: bool, rng: torch.Generator) -> Tensor:
    """Affine matrices (B, 2, 3) of random resized crops that stay inside the image, half of them
    mirrored.

    `crop_scale` is the smallest share of the area that a crop keeps; 1 turns cropping off.
    """
    if crop_scale < 1:
        area, shape, x, y = torch.rand(4, size, generator=rng)
        area = crop_scale + (1 - crop_scale) * area
        aspect = torch.exp(ASPECT * (2 * shape - 1))
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        left, top = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    else:
        width = height = torch.ones(size)
        left = top = torch.zeros(size)
    if flip:
        width = torch.where(torch.rand(size, generator=rng) < 0.5, -width, width)
    zero = torch.zeros(size)
    return torch.stack(
        [torch.stack([width, zero, left], 1), torch.stack([zero, height, top], 1)], 1
    )


def random_resized_crop(
    images: Tensor,
    crop_scale: float,
    flip: bool,
    rng: torch.Generator,
    share: Share | None = None,
) -> Tensor:
    """Crop, resize back and mirror each image of a float batch (B, 3, H, W) with its own random
    parameters.
    """
    share = share or Share(len(images))
    matrices = crop_matrices(share.batch, crop_scale, flip, rng)[share.rows]
    matrices = matrices.to(images.device)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def color_jitter(
    images: Tensor, strength: float, rng: torch.Generator, share: Share | None = None
) -> Tensor:
    """Scale brightness, contrast and saturation of each image (B, 3, H, W) in [0, 1] by its own
    factors, uniform in 1 - `strength` to 1 + `strength`, clipped to [0, 1] after each.

    As torchvision's ColorJitter, but that a batch shares one random order of the three.
    """
    share = share or Share(len(images))
    drawn = torch.rand(3, share.batch, 1, 1, 1, generator=rng)[:, share.rows]
    factors = 1 + strength * (2 * drawn - 1)
    for change in torch.randperm(3, generator=rng).tolist():
        factor = factors[change].to(images.device)
        images = (factor * images + (1 - factor) * _opposite(images, change)).clamp(0, 1)
    return images


def _opposite(images: Tensor, change: int) -> Tensor:
    """What a factor of 0 leaves of images: 0 black, 1 their mean grey, 2 their greys."""
    if change == 0:
        return torch.zeros_like(images)
    grey = (images * torch.tensor(GREY, device=images.device).view(3, 1, 1)).sum(1, keepdim=True)
    return grey.mean((2, 3), keepdim=True) if change == 1 else grey


def augment(
    pixels: Tensor,
    optimization: Optimization,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rng: torch.Generator,
    share: Share | None = None,
) -> Tensor:
    """Normalised inputs of a network, float32 (B, 3, H, W), randomly cropped, mirrored and coloured
    from uint8 pixels of that shape.
    """
    inputs = normalise(pixels, mean, std)
    if optimization.crop_scale < 1 or optimization.flip:
        inputs = random_resized_crop(inputs, optimization.crop_scale, optimization.flip, rng, share)
    if optimization.color_jitter:
        scale, shift = (
            torch.tensor(values, device=inputs.device).view(-1, 1, 1) for values in (std, mean)
        )
        coloured = color_jitter(inputs * scale + shift, optimization.color_jitter, rng, share)
        inputs = (coloured - shift) / scale
    return inputs


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

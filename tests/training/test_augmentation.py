"""Augmentation of batches: crops, flips, mixup and cutmix, against timm where it has them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import Mixup, mixup_target
from torch.nn import functional as F
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)

from tests.support.classifiers import optimization
from truelike.training.augmentation import (
    augment,
    color_jitter,
    crop_matrices,
    cutmix,
    mix,
    mixup,
    normalise,
    random_resized_crop,
)
from truelike.training.settings import Phase


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    found = normalise(pixels, (0.5, 0.5, 0.1), (0.5, 0.25, 0.2)).flatten()
    torch.testing.assert_close(found, torch.tensor([-1.0, 2.0, 0.5]))


@given(seed=st.integers(0, 1000), scale=st.floats(0.05, 0.99))
@settings(max_examples=30, deadline=None)
def test_crops_stay_inside_the_image_and_keep_their_share_of_it(seed: int, scale: float) -> None:
    matrices = crop_matrices(64, scale, True, torch.Generator().manual_seed(seed))
    width, height = matrices[:, 0, 0].abs(), matrices[:, 1, 1]
    assert (matrices[:, 0, 2].abs() + width <= 1 + 1e-5).all()
    assert (matrices[:, 1, 2].abs() + height <= 1 + 1e-5).all()
    assert (width * height >= scale * 0.74).all()  # a side is cut off at the image's own
    assert (width * height <= 1 + 1e-5).all()
    assert (matrices[:, 0, 1] == 0).all()
    assert (matrices[:, 1, 0] == 0).all()


def test_a_flip_mirrors_and_no_crop_changes_nothing() -> None:
    images = torch.rand(40, 3, 8, 8)
    same = random_resized_crop(images, 1.0, False, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    flipped = random_resized_crop(images, 1.0, True, torch.Generator().manual_seed(0))
    mirrored = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(flipped, images, strict=True)]
    assert 8 < sum(mirrored) < 32
    expected = torch.where(torch.tensor(mirrored).view(-1, 1, 1, 1), images.flip(3), images)
    torch.testing.assert_close(flipped, expected, atol=1e-5, rtol=0)


def test_a_crop_of_an_image_shows_a_part_of_it() -> None:
    ramp = torch.linspace(0, 1, 32).expand(16, 3, 32, 32)
    cropped = random_resized_crop(ramp, 0.3, False, torch.Generator().manual_seed(0))
    span = cropped[:, 0, 0].amax(1) - cropped[:, 0, 0].amin(1)
    assert (span < 1).any()
    assert (cropped.diff(dim=3) >= -1e-6).all()


def test_mixup_blends_with_a_permutation() -> None:
    images = torch.rand(10, 3, 4, 4)
    blended, order, weight = mixup(images, 0.2, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(10))
    assert 0 <= weight <= 1
    torch.testing.assert_close(blended, weight * images + (1 - weight) * images[order])


class Reversed:
    """A random generator with given numbers, whose permutation is timm's: the batch reversed."""

    def __init__(self, beta: float, centre: tuple[int, int] = (0, 0)) -> None:
        self._beta, self._centre = beta, iter(centre)

    def beta(self, a: float, b: float) -> float:
        return self._beta

    def permutation(self, size: int) -> np.ndarray:
        return np.arange(size)[::-1].copy()

    def integers(self, high: int) -> int:
        return next(self._centre)


@pytest.mark.parametrize("centre", [(0, 0), (5, 11), (15, 23), (8, 2)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.83, 1.0])
def test_cutmix_and_its_loss_are_those_of_timm(
    weight: float, centre: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, logits = (
        torch.rand(6, 3, 16, 24),
        torch.tensor([0, 1, 2, 3, 0, 1]),
        torch.randn(6, 4),
    )
    numbers = iter(centre)
    monkeypatch.setattr(np.random, "beta", lambda a, b: weight)
    monkeypatch.setattr(np.random, "randint", lambda low, high, size: next(numbers))
    expected, targets = Mixup(0.0, 1.0, label_smoothing=0.1, num_classes=4)(images.clone(), labels)
    found, order, kept = cutmix(images, 1.0, Reversed(weight, centre))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mixup_target(labels, 4, kept, 0.1), targets)
    loss = kept * F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss += (1 - kept) * F.cross_entropy(logits, labels[order], label_smoothing=0.1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_mixup_is_that_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 3, 8, 8)
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.3)
    expected, _ = Mixup(0.2, 0.0, num_classes=4)(images.clone(), torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(mixup(images, 0.2, Reversed(0.3))[0], expected)  # type: ignore[arg-type]


def test_both_mixes_take_turns_and_repeat_with_the_seed() -> None:
    images = torch.rand(4, 3, 8, 8)
    phase = Phase(on="real", mixup=0.2, cutmix=1.0)
    turns = []
    for seed in range(20):
        mixed = mix(images, phase, np.random.default_rng(seed))[0]
        assert torch.equal(mixed, mix(images, phase, np.random.default_rng(seed))[0])
        known = (
            (mixed[:, None] == images[None]).all(2).any(1).all()
        )  # each pixel comes from one image of the batch
        turns.append(bool(known))
    assert 4 < sum(turns) < 16


def test_colour_jitter_is_torchvisions_with_the_factors_of_each_image() -> None:
    images = torch.rand(4, 3, 8, 8)
    found = color_jitter(images, 0.4, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    factors = 1 + 0.4 * (2 * torch.rand(3, 4, 1, 1, 1, generator=generator).flatten(1) - 1)
    changes = (adjust_brightness, adjust_contrast, adjust_saturation)
    order = torch.randperm(3, generator=generator).tolist()
    for image, result, own in zip(images, found, factors.T, strict=True):
        for change in order:
            image = changes[change](image, own[change].item())
        torch.testing.assert_close(result, image, atol=1e-4, rtol=0)
    assert torch.equal(color_jitter(images, 0.0, generator), images)


def test_inputs_are_coloured_before_they_are_normalised() -> None:
    pixels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    statistics = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    chosen = optimization(crop_scale=1.0, flip=False, color_jitter=0.9)
    inputs = augment(pixels, chosen, *statistics, torch.Generator().manual_seed(0))
    expected = color_jitter(pixels / 255, 0.9, torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
    torch.testing.assert_close(inputs * std + mean, expected, atol=1e-4, rtol=0)

"""Copies of training images are found, also mirrored, cropped or recompressed, and counted against
new real images.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.models import float32
from truelike.audit.memorisation import authentic, clustered_interval, copy_threshold, views
from truelike.evaluation.intervals import wilson_interval
from truelike.features import neighbours
from truelike.features.encoder import Encoder, open_encoder
from truelike.features.neighbours import nearest

ROOT = Path(__file__).resolve().parents[2]
TRAINED_ON = 160


def features(seed: int, size: int, dim: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, dim)) * np.linspace(0.5, 2, dim) + shift).astype(np.float32)


@pytest.mark.parametrize("size", [2048, 13], ids=["one chunk", "many chunks"])
def test_nearest_is_the_most_similar(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHUNK", size)
    first, second = features(0, 40), features(1, 30)
    norm = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (first, second)]
    expected = norm[0] @ norm[1].T
    positions, similarity = nearest(first, second)
    np.testing.assert_array_equal(positions, expected.argmax(1))
    np.testing.assert_allclose(similarity, expected.max(1), rtol=1e-5)
    own, own_similarity = nearest(first, first, exclude_self=True)
    assert (own != np.arange(40)).all()
    assert (own_similarity < 0.9999).all()


def test_a_planted_copy_is_found_and_counted() -> None:
    train, held_out, fake = features(0, 60), features(1, 200), features(2, 100)
    fake[17] = train[5] * 1.5  # similarity does not depend on length
    positions, similarity = nearest(fake, train)
    threshold = copy_threshold(nearest(held_out, train)[1])
    assert positions[17] == 5
    assert similarity[17] == pytest.approx(1, abs=1e-6)
    assert similarity[17] > threshold
    assert (nearest(held_out, train)[1] > threshold).mean() == pytest.approx(0.01, abs=0.005)


def test_authentic_by_hand() -> None:
    angles = np.radians(
        [0, 10, 90]
    )  # the first two are 10 degrees apart, the third 80 from its nearest
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    fakes = np.radians([-5, -15, 80, 25])  # 5, 15, 10 and 15 degrees from 0, 0, 90 and 10
    fake = np.stack([np.cos(fakes), np.sin(fakes)], axis=1)
    assert authentic(fake, train).tolist() == [False, True, False, True]


def test_views_are_the_images_mirrored_and_cropped() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    same, mirrored, *crops = views(pixels)
    np.testing.assert_array_equal(same, pixels)
    np.testing.assert_array_equal(mirrored, pixels[:, :, ::-1])
    assert [crop.shape for crop in crops] == [pixels.shape] * 2
    flat = np.full((1, 16, 8, 3), 9, np.uint8)
    assert all((view == 9).all() for view in views(flat))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return open_encoder(float32(ROOT / "models/encoder"))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """The first photographs of the embedded data set, uint8 (N, 28, 28, 3)."""
    table = pd.read_parquet(sorted((ROOT / "data/fashion/data").glob("train-*"))[0])
    images = [
        Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in table["image"].head(600)
    ]
    return np.stack([np.asarray(image) for image in images])


def cropped(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    box = (width / 32, height / 32, width * 31 / 32, height * 31 / 32)
    return np.asarray(
        Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box)
    )


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=60)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(
    ("disguise", "share"),
    [
        (lambda image: image, 1.0),
        (lambda image: image[:, ::-1], 1.0),
        (cropped, 0.9),
        (recompressed, 0.9),
    ],
    ids=["exact", "mirrored", "cropped", "recompressed"],
)
def test_planted_copies_are_found_with_the_embedded_encoder(
    encoder: Encoder,
    photographs: np.ndarray,
    disguise: Callable[[np.ndarray], np.ndarray],
    share: float,
) -> None:
    train, held_out = photographs[:TRAINED_ON], photographs[TRAINED_ON:]
    references = np.concatenate([encoder.embed(view, 64) for view in views(train)])
    threshold = copy_threshold(nearest(encoder.embed(held_out, 64), references)[1])
    planted = np.stack([disguise(image) for image in train[:40]])
    positions, similarity = nearest(encoder.embed(planted, 64), references)
    assert (positions % TRAINED_ON == np.arange(40)).mean() >= share
    assert (similarity > threshold).mean() >= share


def test_images_of_one_source_count_as_far_as_they_differ() -> None:
    rng = np.random.default_rng(0)
    names = [f"s{row // 6}" for row in range(600)]  # six images of each of 100 sources
    alike = np.repeat(rng.random(100) < 0.2, 6)
    share = float(alike.mean())
    found = clustered_interval(alike, names, 0.95)
    expected = wilson_interval(share, 99, 0.95)  # as if there were one image of each
    assert (found.value, found.low, found.high) == pytest.approx(
        (share, expected.low, expected.high), abs=1e-3
    )
    apart = rng.random(600) < 0.2
    expected = wilson_interval(float(apart.mean()), 600, 0.95)
    assert clustered_interval(apart, names, 0.95).high == pytest.approx(expected.high, abs=0.01)
    none = clustered_interval(np.zeros(600, bool), names, 0.95)
    assert none == wilson_interval(0.0, 100, 0.95)


def test_the_clustered_interval_covers_the_share() -> None:
    rng = np.random.default_rng(1)
    names, covered = [f"s{row // 5}" for row in range(400)], 0
    for _ in range(200):
        hits = rng.random(400) < np.repeat(rng.beta(0.3, 0.9, 80), 5)  # 25 % on average
        interval = clustered_interval(hits, names, 0.95)
        covered += interval.low <= 0.25 <= interval.high
    assert 182 <= covered <= 200

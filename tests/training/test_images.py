"""Images of networks: decoded once or for every batch, by any number of processes, in one order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.classifiers import CLASSES, coloured, write
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided
from truelike.runtime.errors import TruelikeError
from truelike.training.images import (
    LabelledImages,
    StoredImages,
    Union,
    fetched,
    load_images,
    load_kept,
    one_by_one,
)
from truelike.training.phases import streamed_positions


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ImageSet]:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for number, size in enumerate((20, 13)):
        write(tmp_path / str(number), coloured(size, number), f"image{number}-")
    return [ImageSet(tmp_path / str(number)) for number in range(2)]


def test_streamed_images_are_the_decoded_ones(sets: list[ImageSet]) -> None:
    table = pd.concat([undecided(images) for images in sets], ignore_index=True)
    table["keep"] = np.arange(33) % 5 != 0
    for resolution in (None, 24):
        decoded = load_kept(table, CLASSES, resolution)
        stored = load_kept(table, CLASSES, resolution, streaming=True)
        assert isinstance(decoded, LabelledImages)
        assert isinstance(stored, StoredImages)
        assert decoded.resolution == stored.resolution == (resolution or 32)
        np.testing.assert_array_equal(stored.labels, decoded.labels)
        positions = np.array([25, 3, 3, 0])
        np.testing.assert_array_equal(stored.take(positions), decoded.pixels[positions])
        for images in (stored, decoded):
            np.testing.assert_array_equal(np.stack(list(one_by_one(images))), decoded.pixels)
            both = Union(images, images)
            np.testing.assert_array_equal(
                both.take(positions + 10), decoded.take((positions + 10) % 26)
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order_from_any_number_of_processes(
    sets: list[ImageSet], workers: int
) -> None:
    stored = load_images(sets[0], streaming=True)
    batches = [np.array([position, 19 - position]) for position in range(20)]
    for expected, (positions, pixels) in zip(
        batches, fetched(stored, batches, workers), strict=True
    ):
        np.testing.assert_array_equal(positions, expected)
        np.testing.assert_array_equal(pixels.numpy(), stored.take(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_message_from_any_process(
    sets: list[ImageSet], workers: int
) -> None:
    shard = sets[0].folder / "shard-00000.tar"
    data = bytearray(shard.read_bytes())
    place = sets[0].index.iloc[7]
    data[place["offset"] + 60] ^= 255
    shard.write_bytes(data)
    stored = load_images(ImageSet(sets[0].folder), streaming=True)
    with pytest.raises(
        TruelikeError, match=r"image 'image0-7' does not match its sha256"
    ) as raised:
        list(fetched(stored, [np.arange(5), np.arange(5, 10)], workers))
    assert "Traceback" not in str(raised.value)


def test_large_sets_are_decoded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr("truelike.training.images.own_cores", lambda: 2)
    images = coloured(600, 0)
    write(tmp_path / "large", images, "i")
    decoded = load_images(ImageSet(tmp_path / "large"))
    np.testing.assert_array_equal(decoded.take(np.arange(600)), images.pixels)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_the_order_of_a_stream_is_a_function_of_seed_and_step(sampling: str) -> None:
    labels = np.array([0] * 11 + [1] * 4)
    whole = list(streamed_positions(labels, sampling, [3, 0], 4, range(30)))  # type: ignore[arg-type]
    for start in (1, 7, 29):
        rest = list(streamed_positions(labels, sampling, [3, 0], 4, range(start, 30)))  # type: ignore[arg-type]
        np.testing.assert_array_equal(rest, whole[start:])
    other = list(streamed_positions(labels, sampling, [4, 0], 4, range(30)))  # type: ignore[arg-type]
    assert not np.array_equal(other, whole)
    length = 15 if sampling == "uniform" else 22
    first = np.concatenate(whole)[:length]
    counts = np.bincount(labels[first])
    assert counts.tolist() == ([11, 4] if sampling == "uniform" else [11, 11])

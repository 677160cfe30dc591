"""Work in parts: each is kept when it is finished, survives what ends the run, and is made again only if damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny_models
from truelike.data.imageset import ImageSet
from truelike.executor import Part, Progress, map_images, map_parts
from truelike.models.encoder import features, open_encoder

PARTS = [Part((f"{number}.a", f"{number}.b"), number, 10) for number in range(5)]


def recorder(until: int = 99) -> tuple[list[int], Callable[[Any, Any, Progress], list[bytes]]]:
    """The parts that were made, and a function that makes them until it fails at part `until`."""
    made: list[int] = []

    def make(model: str, number: int, progress: Progress) -> list[bytes]:
        if number == until:
            raise OSError("no power")
        made.append(number)
        progress(10)
        return [f"{model} a{number}".encode(), f"{model} b{number}".encode()]

    return made, make


def test_a_run_that_failed_keeps_its_parts_and_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, make = recorder(until=3)
    with pytest.raises(OSError, match="no power"):
        map_parts(PARTS, tmp_path, lambda: "model", make, "toy")
    assert made == [0, 1, 2]
    made, make = recorder()
    assert map_parts(PARTS, tmp_path, lambda: "model", make, "toy") == 20
    assert made == [3, 4]
    for number in range(5):
        assert (tmp_path / f"{number}.a").read_text() == f"model a{number}"
        assert (tmp_path / f"{number}.b").read_text() == f"model b{number}"
    assert "50/50" in capsys.readouterr().err


def test_a_damaged_part_is_made_again_and_no_other_and_the_model_is_opened_only_for_work(tmp_path: Path) -> None:
    map_parts(PARTS, tmp_path, lambda: "model", recorder()[1], "toy")

    def not_needed() -> None:
        raise AssertionError

    assert map_parts(PARTS, tmp_path, not_needed, recorder()[1], "toy") == 0
    (tmp_path / "1.b").write_text("model b2")
    (tmp_path / "4.a").unlink()
    made, make = recorder()
    assert map_parts(PARTS, tmp_path, lambda: "model", make, "toy") == 20
    assert made == [1, 4]
    assert (tmp_path / "1.b").read_text() == "model b1"


def test_images_are_mapped_in_the_batches_in_which_they_would_be_without_parts(
    encoder: Path, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    opened = open_encoder(str(encoder), "float32")
    for batch_size in (1, 3, 16):
        found = map_images(real, open_encoder, str(encoder), "float32", features, batch_size, "embed")["embedding"]
        assert found.dtype == np.float32
        assert found.shape == (10, tiny_models.WIDTH)
        np.testing.assert_array_equal(found, opened.embed(real.load(), batch_size))
    files = [len(list(folder.glob("*.npz"))) for folder in (tmp_path / ".work/embed").iterdir()]
    assert sorted(files) == [1, 1, 3]


def brightness(model: Any, pixels: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    return {"text": np.array([f"{image.mean() * scale:.2f} é" for image in pixels]), "mean": pixels.mean((1, 2, 3))}


def open_nothing(model: str, dtype: str) -> None: ...


def test_settings_images_and_model_decide_what_is_used_again(
    real: ImageSet, encoder: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def folders() -> int:
        return len(list((tmp_path / ".work/toy").iterdir()))

    first = map_images(real, open_nothing, str(encoder), "float32", brightness, 2, "toy", scale=1.0)
    assert first["text"].tolist() == [f"{image.mean():.2f} é" for image in real.load()]
    other = map_images(real, open_nothing, str(encoder), "float32", brightness, 2, "toy", scale=2.0)
    np.testing.assert_array_equal(other["mean"], first["mean"])
    assert other["text"].tolist() != first["text"].tolist()
    map_images(real, open_nothing, str(encoder), "float32", brightness, 2, "toy", scale=1.0)
    assert folders() == 2
    map_images(real, open_nothing, str(captioner), "float32", brightness, 2, "toy", scale=1.0)
    assert folders() == 3

"""Fixtures that several test files share: tiny random models, and a small real training set."""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

os.environ.setdefault("TRUELIKE_DEVICE", "cpu")  # whose bytes and tensors tests compare with

from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set

if TYPE_CHECKING:
    from truelike.synthesis.jobs import SynthesisJob


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with most slow tests first, so that no worker ends with a long one alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion pipeline."""
    from tests.support import tiny_models

    return tiny_models.save_generator(tmp_path_factory.mktemp("models") / "generator")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP whose projection is as wide as the generator's text states."""
    from tests.support import tiny_models

    return tiny_models.save_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BLIP."""
    from tests.support import tiny_models

    return tiny_models.save_blip(tmp_path_factory.mktemp("models") / "captioner")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Ten random training images of 16 x 16 pixels in two classes, as the stage prepare writes
    them.
    """
    folder = tmp_path_factory.mktemp("real") / "train"
    draw = np.random.default_rng(0)
    samples = [
        Sample(
            f"image-{number}",
            number % 2,
            draw.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            {"split": "train", "source": f"{number}.png"},
        )
        for number in range(10)
    ]
    write_image_set(folder, samples, ["boot", "bag"])
    return ImageSet(folder)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pointer to a tiny network of timm's, without weights."""
    pointer = tmp_path_factory.mktemp("classifier") / "net.yaml"
    pointer.write_text("timm: test_resnet\n")
    return str(pointer)


@pytest.fixture
def job(
    generator: Path, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "SynthesisJob":
    """A job in an empty project: captions and features, no style and no adapter."""
    from tests.support.jobs import make_job

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return make_job(generator, real, tmp_path / "outputs")

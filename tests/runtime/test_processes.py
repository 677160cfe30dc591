"""Several processes: adaptation has the losses and the gradient of one, parts are shared out, and
one writes.
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.learning import ADAPT, training_images
from tests.support.models import float32
from tests.support.processes import run_two
from truelike.adaptation.lora import learn_adapter, lora_shape
from truelike.adaptation.settings import Adapt
from truelike.generator.adapter import LORA_FILE, write_adapter
from truelike.generator.generator import Generator
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import one_thread, own_cores, own_part, own_rows, wait_for_all
from truelike.runtime.scratch import is_first


def learn(generator: Path, real: ImageSet, settings: Adapt, folder: Path) -> None:
    folder.mkdir()
    opened = Generator.open(float32(generator))
    images = training_images(opened, real, vectors=np.ones((len(real), 32), np.float32))
    learn_adapter(opened, images, settings, "float32", folder)
    if is_first():
        write_adapter(folder, opened.pipeline, lora_shape(opened, settings), "")


@pytest.mark.parametrize(
    ("batch_size", "dm"),
    [
        (4, {"weight": 0.1}),
        (4, {"weight": 1.0, "kernel": "rbf", "groups": "class"}),
        (5, {"weight": 1.0, "reduction": "mean"}),
    ],
)
def test_two_processes_learn_what_one_learns_from_the_same_batches_and_the_first_writes(
    generator: Path, real: ImageSet, tmp_path: Path, batch_size: int, dm: dict
) -> None:
    changes = {
        "batch_size": batch_size,
        "steps": 5,
        "checkpoint_every": 3,
        "dm": ADAPT.dm.model_copy(update=dm),
    }
    settings = ADAPT.model_copy(update=changes)
    work = partial(learn, generator, real, settings)
    with one_thread():
        work(tmp_path / "alone")
        assert run_two(work, tmp_path) == [0, 0]
    assert list((tmp_path / "1").iterdir()) == []
    two, one = (
        np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1)
        for name in ("0", "alone")
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)
    learned, expected = (load_file(tmp_path / name / LORA_FILE) for name in ("0", "alone"))
    moved = settings.lr * settings.steps
    for name, value in expected.items():
        torch.testing.assert_close(learned[name], value, rtol=0, atol=0.01 * moved)


def test_batches_too_small_for_the_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_rows(1) == slice(None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    assert np.arange(20)[own_rows(20)].tolist() == [3, 11, 19]
    with pytest.raises(TruelikeError, match="8 processes for batches of 7 images; start fewer"):
        own_rows(7)


def share(items: list[str], folder: Path) -> None:
    for name in items[own_part()]:
        time.sleep(0.3)
        (folder.parent / name).touch()
    wait_for_all()
    assert {file.name for file in folder.parent.iterdir()} == set(items)


@pytest.mark.parametrize("items", [["a", "b", "c"], ["a"]])
def test_each_has_a_part_of_its_own_and_waits_until_all_are_done(
    items: list[str], tmp_path: Path
) -> None:
    assert items[own_part()] == items
    assert run_two(partial(share, items), tmp_path) == [0, 0]


def test_processes_of_one_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truelike.runtime.processes.cpu_count", lambda: 16)
    assert own_cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert own_cores() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert own_cores() == 1


def test_only_the_cores_that_a_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert own_cores() == 1

"""Work in parts: each is kept when it is finished, survives what ends the run, and is made again
only if damaged.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny_models
from tests.support.models import float32
from tests.support.toy_parts import Toy, make_mistake, make_poison, make_slowly
from truelike.captioning.captions import caption_images
from truelike.features.encoder import features, open_encoder
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.runtime.executor import Part, Progress, map_parts
from truelike.runtime.hub import Model
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.run import synthesize

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


def test_a_run_that_failed_keeps_its_parts_and_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truelike.runtime.progress.INTERVAL", 1e-9)  # seconds
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
    assert "toy: 50 of 50 images" in capsys.readouterr().err


def test_a_damaged_part_is_made_again_and_no_other_and_the_model_is_opened_only_for_work(
    tmp_path: Path,
) -> None:
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
    opened = open_encoder(float32(encoder))
    for batch_size in (1, 3, 16):
        found = map_images(real, open_encoder, float32(encoder), features, batch_size, "embed")[
            "embedding"
        ]
        assert found.dtype == np.float32
        assert found.shape == (10, tiny_models.WIDTH)
        np.testing.assert_array_equal(found, opened.embed(real.load(), batch_size))
    files = [len(list(folder.glob("*.npz"))) for folder in (tmp_path / ".work/embed").iterdir()]
    assert sorted(files) == [1, 1, 3]


def brightness(model: Any, pixels: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    return {
        "text": np.array([f"{image.mean() * scale:.2f} é" for image in pixels]),
        "mean": pixels.mean((1, 2, 3)),
    }


def open_nothing(model: Model) -> None: ...


def test_settings_images_and_model_decide_what_is_used_again(
    real: ImageSet, encoder: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def folders() -> int:
        return len(list((tmp_path / ".work/toy").iterdir()))

    first = map_images(real, open_nothing, float32(encoder), brightness, 2, "toy", scale=1.0)
    assert first["text"].tolist() == [f"{image.mean():.2f} é" for image in real.load()]
    other = map_images(real, open_nothing, float32(encoder), brightness, 2, "toy", scale=2.0)
    np.testing.assert_array_equal(other["mean"], first["mean"])
    assert other["text"].tolist() != first["text"].tolist()
    map_images(real, open_nothing, float32(encoder), brightness, 2, "toy", scale=1.0)
    assert folders() == 2
    map_images(real, open_nothing, float32(captioner), brightness, 2, "toy", scale=1.0)
    assert folders() == 3


# On Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with a core each, where this process takes it to be."""
    import ray
    from ray.cluster_utils import Cluster

    memory = 100 * 2**20
    head = {"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False}
    quick = {
        "worker_niceness": 0,
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": quick})
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        patch.setenv("TRUELIKE_EXECUTOR", "ray")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield cluster
    ray.shutdown()
    cluster.shutdown()


def whole(folder: Path) -> bool:
    return all(
        (folder / f"{n}.a").read_bytes() == b"a%d" % n
        and (folder / f"{n}.b").read_bytes() == bytes(300_000)
        for n in range(12)
    )


TWELVE = [Part((f"{number}.a", f"{number}.b"), number, 10) for number in range(12)]


def disturb(folder: Path, strike: Callable[[], None]) -> threading.Thread:
    """Strike when some parts are being made."""

    def wait_and_strike() -> None:
        while len(list(folder.glob("part-*"))) < 4:
            time.sleep(0.02)
        strike()

    thread = threading.Thread(target=wait_and_strike)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_part(cluster: Any, tmp_path: Path) -> None:
    def strike() -> None:
        newest = max(tmp_path.glob("part-*"), key=lambda file: file.stat().st_mtime_ns)
        os.kill(int(newest.name.split("-")[2]), signal.SIGKILL)

    thread = disturb(tmp_path, strike)
    assert map_parts(TWELVE, tmp_path, partial(Toy, tmp_path), make_slowly, "toy") == 120
    thread.join()
    assert whole(tmp_path)
    assert len(list(tmp_path.glob("part-*"))) == 13
    assert len(list(tmp_path.glob("opened-*"))) <= 3


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_a_function_raises_is_raised_here_and_a_part_that_kills_its_workers_is_named(
    tmp_path: Path,
) -> None:
    with pytest.raises(TruelikeError, match=r"^the caption is empty$"):
        map_parts(TWELVE, tmp_path, partial(Toy, tmp_path), make_mistake, "toy")
    with pytest.raises(TruelikeError, match=r"3 workers were lost while making 2\.a"):
        map_parts(TWELVE, tmp_path, partial(Toy, tmp_path), make_poison, "toy")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_images_and_captions_have_the_bytes_of_a_run_in_one_process(
    real: ImageSet,
    captioner: Path,
    job: SynthesisJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def everything() -> dict[str, bytes]:
        synthesize(job, 0, tmp_path / "out")
        table = caption_images(real, float32(captioner), 5, 1)
        made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        shutil.rmtree(tmp_path / ".work")
        return made | {"captions": table.to_json().encode()}

    on_ray = everything()
    monkeypatch.delenv("TRUELIKE_EXECUTOR")
    assert everything() == on_ray


@pytest.mark.slow
def test_a_node_that_goes_down_costs_only_its_parts(cluster: Any, tmp_path: Path) -> None:
    other = next(iter(cluster.worker_nodes))
    thread = disturb(tmp_path, lambda: cluster.remove_node(other, allow_graceful=False))
    assert map_parts(TWELVE, tmp_path, partial(Toy, tmp_path), make_slowly, "toy") == 120
    thread.join()
    assert whole(tmp_path)
    assert 12 < len(list(tmp_path.glob("part-*"))) <= 14


def test_an_executor_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUELIKE_EXECUTOR", "slurm")
    with pytest.raises(TruelikeError, match="TRUELIKE_EXECUTOR: no executor 'slurm'"):
        map_parts(PARTS, tmp_path, lambda: "model", recorder()[1], "toy")

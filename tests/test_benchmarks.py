"""Every benchmark runs at a tiny size, and its two sides agree; nothing here is timed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import (
    Cost,
    compare,
    demo,
    memory,
    metrics,
    replicas,
    storage,
    synthesis,
    table,
    training,
    write,
)
from tests.support.jobs import OFF
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.runtime.yaml import read_yaml
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.settings import Synthesize
from truelike.training.images import LabelledImages
from truelike.training.seeds import Training
from truelike.training.settings import Phase

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def from_prior(job: SynthesisJob) -> SynthesisJob:
    """A replica of the ten images from the latent prior, without style and adapter."""
    params = load_params(ROOT / "recipes/default.yaml")
    settings = params.synthesize.model_copy(update={"batch_size": 4, "shard_size": 8})
    prompts = params.prompts.model_copy(update={"base": "a {class}"})
    return replace(job, prompts=prompts, settings=settings, visual_guidance=OFF)


def test_the_stock_pipeline_makes_the_same_images(from_prior: SynthesisJob, tmp_path: Path) -> None:
    synthesis.ours(from_prior, 0, tmp_path / "ours")
    synthesis.stock(from_prior, 0, tmp_path / "stock")
    assert synthesis.largest_difference(tmp_path / "ours", tmp_path / "stock") <= 1


def test_the_fast_recipe_changes_settings_of_synthesis_alone() -> None:
    recipe = read_yaml(ROOT / synthesis.FAST)
    settings = load_params(ROOT / "recipes/default.yaml").synthesize
    assert list(recipe) == ["synthesize"]
    assert isinstance(synthesis.fast(settings, recipe), Synthesize)
    assert synthesis.fast(settings, recipe) != settings


def test_the_time_of_the_last_whole_run_is_split_by_stage() -> None:
    rows = [
        ("prepare", "2026-01-01T00:00:00+00:00", 1.0),
        ("prepare", "2026-01-01T00:01:00+00:00", 2.0),
        ("train@real", "2026-01-01T00:01:10+00:00", 6.0),
        ("train@mixed", "2026-01-01T00:01:20+00:00", 7.0),
    ]
    found = demo.spent(pd.DataFrame(rows, columns=["stage", "finished", "seconds"]))
    assert found.to_dict("index") == {
        "prepare": {"runs": 1, "inside": 2.0, "between": 0.0},
        "train": {"runs": 2, "inside": 13.0, "between": 7.0},
    }


def test_replicas_are_forgotten_and_a_log_tells_how_far_one_came(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  adapt: {cmd: a}\n  synthesize@0: {cmd: b}\n"
    )
    (tmp_path / "outputs/synthetic/0").mkdir(parents=True)
    replicas.forget(tmp_path)
    assert read_yaml(tmp_path / "dvc.lock")["stages"] == {"adapt": {"cmd": "a"}}
    assert list((tmp_path / "outputs").iterdir()) == []
    (tmp_path / "params.yaml").write_text("synthesize: {replicas: [0], steps: 20}\n")
    replicas.set_synthesis(tmp_path, replicas=[0, 1])
    assert read_yaml(tmp_path / "params.yaml")["synthesize"] == {"replicas": [0, 1], "steps": 20}
    log = tmp_path / "log"
    log.write_text("Running\n")
    assert replicas.bar(log) is None
    log.write_text(
        "Running\nsynthesize 0:  20%|# | 32/160 [00:11<00:44]synthesize 0:  40%|# | 64/160 "
        "[00:21<00:31]"
    )
    assert replicas.bar(log) == (64, 160)


def test_measures_equal_the_usual_libraries() -> None:
    samples = metrics.features(200, 8)
    expected = metrics.usual_manifold(*samples)
    assert metrics.our_manifold(*samples) == pytest.approx(expected)
    assert metrics.our_distance(*samples) == pytest.approx(
        metrics.usual_distance(*samples), rel=1e-4
    )
    assert metrics.peak_mib(lambda: np.zeros(2**20)) == pytest.approx(8, rel=0.1)


def test_both_loops_train_the_same_network_on_the_same_images(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = LabelledImages(
        (draw.integers(0, 80, (24, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype("u1"),
        labels,
    )
    params = load_params(ROOT / "recipes/default.yaml").train.model_copy(
        update={"steps": 80, "batch_size": 8}
    )
    arm = Training(
        classifier=str(ROOT / "models/backbone"),
        num_classes=2,
        phases=[Phase(on="partner")],
        optimization=params.optimization,
        real=images,
        partner=images,
        evaluated={"validation": images},
        checkpoint_every=80,
    )
    training.write_folder(tmp_path / "images", images)
    own: dict[int, np.ndarray] = {}
    training.our_seeds(arm, [0], own)
    theirs = training.usual(arm, tmp_path / "images", 0, workers=0)
    assert own[0].shape == theirs.shape == (24, 2)
    assert training.accuracy(own, labels) == training.accuracy({0: theirs}, labels) == 100


def test_shards_and_loose_files_come_back_from_the_remote(tmp_path: Path) -> None:
    images = storage.samples(30)
    for name in ("loose", "sharded"):
        project = tmp_path / name
        storage.start_project(project)
        if name == "loose":
            storage.write_loose(project / "set", images)
        else:
            storage.write_image_set(project / "set", images, storage.CLASSES)
        assert list(storage.measure(project)) == ["add set", "status", "push", "pull"]
    pulled = ImageSet(tmp_path / "sharded/set")
    files = {path.stem: path.read_bytes() for path in (tmp_path / "loose/set").rglob("*.png")}
    assert {key: pulled.png(position) for position, key in enumerate(pulled.keys)} == files


def test_the_memory_of_a_stage_is_watched_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOT", ROOT)
    found = memory.peaks(4, stages=("prepare",))
    assert list(found) == ["prepare"]
    anonymous, resident = found["prepare"]
    assert 20 < anonymous < resident


def test_a_table_by_hand_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n", encoding="utf-8"
    )
    lines = table({"usual": Cost(3, 4), "ours": Cost(2, 1)}, "usual")
    assert lines[2:] == ["| usual | 3.00 | 4.00 | 1.00 |", "| ours | 2.00 | 1.00 | 1.50 |"]
    write("one", ["new"], page)
    assert (
        page.read_text(encoding="utf-8")
        == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    )


def test_sides_take_turns() -> None:
    calls: list[str] = []
    costs = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b", "a", "b"]
    assert set(costs) == {"a", "b"}

"""Seeds side by side: bit-equal for any number of workers, resumable, and the documented arms."""

import multiprocessing
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from tests.support.classifiers import (
    CLASSES,
    OPTIMIZATION,
    TRAIN,
    coloured,
    load,
    training,
)
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import one_thread
from truelike.runtime.scratch import stack_on_disk
from truelike.training import seeds as seeds_module
from truelike.training.images import LabelledImages
from truelike.training.loop import fit, predict
from truelike.training.networks import open_classifier
from truelike.training.seeds import seed_file, train_seeds
from truelike.training.settings import Phase, Train

ROOT = Path(__file__).resolve().parents[2]


def test_results_are_bit_equal_for_any_number_of_workers(classifier: str, tmp_path: Path) -> None:
    work = training(classifier, Phase(on="real+partner", mixup=0.2))
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        train_seeds(work, [0, 1, 2], folder, workers)
    for seed in (0, 1, 2):
        assert (
            seed_file(tmp_path / "1", seed).read_bytes()
            == seed_file(tmp_path / "3", seed).read_bytes()
        )
    assert not np.array_equal(load(tmp_path / "1", 0)["test"], load(tmp_path / "1", 1)["test"])
    assert load(tmp_path / "1", 0)["test"].shape == (9, 3)
    assert load(tmp_path / "1", 0)["log"].shape == (12, 4)


def test_images_on_disk_are_trained_on_as_those_in_memory(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    phases = [Phase(on="real+partner", share=0.5, soft_labels=0.5), Phase(on="real", share=0.5)]
    in_memory = training(classifier, *phases)

    def stored(images: LabelledImages) -> LabelledImages:
        return replace(images, pixels=stack_on_disk(images.pixels))

    on_disk = replace(
        in_memory,
        real=stored(in_memory.real),
        partner=stored(in_memory.partner),
        evaluated={name: stored(images) for name, images in in_memory.evaluated.items()},
    )
    for name, work in {"memory": in_memory, "disk": on_disk}.items():
        (tmp_path / name).mkdir()
        train_seeds(work, [0, 1], tmp_path / name, workers=2)
    for seed in (0, 1):
        assert (
            seed_file(tmp_path / "disk", seed).read_bytes()
            == seed_file(tmp_path / "memory", seed).read_bytes()
        )
    assert list((tmp_path / "project/.work").iterdir()) == []


def test_finished_seeds_are_not_trained_again(classifier: str, tmp_path: Path) -> None:
    work = training(classifier)
    train_seeds(work, [0], tmp_path, 1)
    before = seed_file(tmp_path, 0).stat().st_mtime_ns
    train_seeds(work, [0, 1], tmp_path, 2)
    assert seed_file(tmp_path, 0).stat().st_mtime_ns == before
    assert seed_file(tmp_path, 1).exists()


def test_checkpoints_go_when_the_seed_is_finished(classifier: str, tmp_path: Path) -> None:
    phases = [Phase(on="real+partner", soft_labels=0.5)]
    train_seeds(training(classifier, *phases), [0], tmp_path, 1)
    assert {file.name for file in tmp_path.iterdir()} == {"seed-0.npz", "seed-0.npz.sha256"}


def test_a_failing_seed_fails_the_stage(
    classifier: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ValueError("out of luck")

    monkeypatch.setattr(seeds_module, "fit", broken)  # inherited by the forked process
    with pytest.raises(TruelikeError, match=r"seed 5 ended with status 1; .* is kept"):
        train_seeds(training(classifier), [5], tmp_path, 1)
    assert "out of luck" in capfd.readouterr().err

    def full(*args: object, **options: object) -> None:
        raise TruelikeError("checkpoint.pt: cannot be written")

    monkeypatch.setattr(seeds_module, "fit", full)
    with pytest.raises(TruelikeError, match="seed 5"):
        train_seeds(training(classifier), [5], tmp_path, 1)
    said = capfd.readouterr().err
    assert "checkpoint.pt: cannot be written" in said
    assert "Traceback" not in said


def test_workers_end_with_their_parent_also_in_the_middle_of_a_long_step(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds_module, "fit", lambda *args, **options: time.sleep(60))
    stage = multiprocessing.get_context("fork").Process(
        target=train_seeds, args=(training(classifier), [0], tmp_path, 1)
    )
    stage.start()
    while not (workers := psutil.Process(stage.pid).children()):
        time.sleep(0.05)
    time.sleep(0.5)
    assert workers[0].is_running()
    stage.kill()
    stage.join()
    deadline = time.monotonic() + 20
    while workers[0].is_running() and workers[0].status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_teacher_is_the_network_of_the_arm_real(classifier: str, tmp_path: Path) -> None:
    work = training(classifier, Phase(on="partner", soft_labels=1.0))
    teacher = replace(training(classifier, Phase(on="real")), evaluated={"partner": work.partner})
    for folder, arm in (("student", work), ("teacher", teacher)):
        (tmp_path / folder).mkdir()
        train_seeds(arm, [4], tmp_path / folder, 1)
    taught = load(tmp_path / "teacher", 4)["partner"]
    with one_thread():
        sources = [LabelledImages(work.partner.pixels, taught)]
        model = fit(
            lambda: open_classifier(classifier, 3, False),
            lambda _: sources,
            work.phases,
            OPTIMIZATION,
            seed=4,
        )
        expected = predict(model, work.evaluated["test"])
    np.testing.assert_array_equal(load(tmp_path / "student", 4)["test"], expected)


def documented_arms() -> dict[str, dict]:
    """The arms of the yaml block in docs/methods.md."""
    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.DOTALL
    )
    return YAML(typ="safe", pure=True).load(block)


@pytest.mark.parametrize("name", documented_arms())
def test_documented_arms_train_at_equal_steps(name: str, tmp_path: Path) -> None:
    arms = TRAIN["arms"] | {name: documented_arms()[name]}
    settings = Train.model_validate(TRAIN | {"pretrained": True, "arms": arms})
    work = training(str(ROOT / "models" / "backbone"), *settings.arms[name].phases)
    work = replace(work, optimization=settings.optimization)
    train_seeds(work, [0], tmp_path, 1)
    found = load(tmp_path, 0)
    assert found["log"].shape == (TRAIN["steps"], 4)
    assert np.isfinite(found["log"]).all()
    assert found["test"].shape == (9, len(CLASSES))


@pytest.mark.parametrize("on", ["real", "partner", "real+partner"])
def test_one_image_per_class_fills_a_larger_batch(classifier: str, on: str, tmp_path: Path) -> None:
    work = replace(training(classifier, Phase(on=on)), real=coloured(3, 0), partner=coloured(3, 1))  # type: ignore[arg-type]
    train_seeds(work, [0], tmp_path, 1)
    assert np.isfinite(load(tmp_path, 0)["test"]).all()


def test_a_joint_phase_with_one_image_per_class(classifier: str, tmp_path: Path) -> None:
    phase = Phase(on="real+partner", joint=(1.0, 1.0), cutmix=1.0, soft_labels=0.5)
    train_seeds(
        replace(training(classifier, phase), real=coloured(3, 0), partner=coloured(3, 1)),
        [0],
        tmp_path,
        1,
    )
    assert np.isfinite(load(tmp_path, 0)["test"]).all()

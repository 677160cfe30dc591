"""Training: augmentation, schedule, phases, determinism, resuming, and the files of an arm."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import psutil
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stages import evaluate
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import discard, stack_on_disk
from truelike.training import seeds as seeds_module
from truelike.training.arm import train_arm
from truelike.training.augmentation import crop_matrices, mixup, normalise, random_resized_crop
from truelike.training.images import load_kept, partner_rows
from truelike.training.loop import (
    LabelledImages,
    LogRow,
    Recipe,
    TrainingSet,
    Union,
    fit,
    learning_rate,
    next_positions,
    one_thread,
    phase_steps,
    predict,
    reset_head,
)
from truelike.training.networks import open_classifier
from truelike.training.seeds import Job, seed_file, train_seeds
from truelike.training.settings import Arm, Phase, Train

CLASSES = ["red", "green", "blue"]
ROOT = Path(__file__).resolve().parents[2]


def coloured(size: int, seed: int) -> LabelledImages:
    """Noise with a square in the colour of the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 3
    pixels = rng.integers(0, 120, (size, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        top, left = rng.integers(0, 16, 2)
        image[top : top + 12, left : left + 12, label] = 255
    return LabelledImages(pixels, labels)


def write(folder: Path, images: LabelledImages, prefix: str) -> None:
    samples = [
        Sample(f"{prefix}{i}", int(label), pixels)
        for i, (label, pixels) in enumerate(zip(images.labels, images.pixels, strict=True))
    ]
    write_image_set(folder, samples, CLASSES)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    pointer = tmp_path_factory.mktemp("net") / "net.yaml"
    pointer.write_text("timm: test_resnet\n")
    return str(pointer)


RECIPE = Recipe(12, 8, "adamw", 2e-3, "cosine", 0.05, 0.1, 0.1, 0.6, True)


def job(classifier: str, *phases: Phase, recipe: Recipe = RECIPE) -> Job:
    evaluated = {"validation": coloured(6, 7).pixels, "test": coloured(9, 8).pixels}
    chosen = phases or (Phase(on="real+partner"),)
    return Job(classifier, False, 3, chosen, recipe, coloured(30, 0), coloured(24, 1), evaluated, 5)


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


def test_learning_rate_by_hand() -> None:
    rates = [learning_rate(step, 20, 1.0, 0.2, "cosine") for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert learning_rate(0, 10, 2.0, 0.0, "cosine") == 2.0
    assert learning_rate(9, 10, 1.0, 1.0, "cosine") == 1.0
    rates = [
        learning_rate(step, 200, 0.1, 0.0, "steps") for step in (0, 49, 50, 99, 100, 149, 150, 199)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    assert [learning_rate(step, 8, 1.0, 0.25, "steps") for step in range(4)] == [0.5, 1.0, 0.2, 0.2]


@given(st.integers(1, 2000), st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_every_arm_has_the_same_number_of_steps(steps: int, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = phase_steps(steps, shares)
    assert sum(found) == steps
    assert all(abs(count - steps * share) <= 1 for count, share in zip(found, shares, strict=True))


@given(size=st.integers(1, 40), batch=st.integers(1, 16))
@settings(deadline=None)
def test_batches_are_full_and_pass_over_all_images_evenly(size: int, batch: int) -> None:
    rng, waiting, batches = np.random.default_rng(0), np.zeros(0, int), []
    for _ in range(20):
        positions, waiting = next_positions(waiting, size, batch, rng)
        batches.append(positions)
    assert all(len(positions) == batch for positions in batches)
    counts = np.bincount(np.concatenate(batches), minlength=size)
    assert counts.max() - counts.min() <= 1


def test_training_learns_the_colours(classifier: str) -> None:
    recipe = Recipe(60, 16, "adamw", 2e-3, "cosine", 0.05, 0.0, 0.05, 0.8, True)
    work = job(classifier, Phase(on="real"), recipe=recipe)
    with one_thread():
        model = fit(
            lambda: open_classifier(classifier, 3, False), work.sources, work.phases, recipe, seed=0
        )
        test = coloured(90, 99)
        probs = predict(model, test.pixels)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == test.labels).mean() > 0.9


def test_a_seed_starts_every_arm_from_the_same_weights(classifier: str) -> None:
    first: list[torch.Tensor] = []

    def opened() -> nn.Module:
        model = open_classifier(classifier, 3, False)
        first.append(model.get_submodule("fc").weight.detach().clone())  # type: ignore[union-attr, operator]
        return model

    recipe = Recipe(2, 8, "sgd", 0.1, "cosine", 5e-4, 0.1, 0.0, 0.6, True)
    for phases in (
        [Phase(on="real")],
        [Phase(on="partner", share=0.5, mixup=0.2), Phase(on="real", share=0.5)],
    ):
        work = job(classifier, *phases)
        fit(opened, work.sources, work.phases, recipe, seed=4)
    assert torch.equal(first[0], first[1])


def test_reset_head_changes_the_last_layer_alone(classifier: str) -> None:
    model = open_classifier(classifier, 3, False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reset_head(model)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"} or changed == {"fc.weight"}


def test_phases_train_on_their_own_images_with_their_own_schedule(classifier: str) -> None:
    phases = [
        Phase(on="partner", share=0.5),
        Phase(on="real", share=0.5, lr_scale=0.1, reset_head=True),
    ]
    work, seen, log = job(classifier, *phases), [], []

    def source(phase: Phase) -> list[TrainingSet]:
        seen.append(phase.on)
        return work.sources(phase)

    fit(lambda: open_classifier(classifier, 3, False), source, phases, RECIPE, 0, log.append)
    assert seen == ["partner", "real"]
    assert [row[0] for row in log] == list(range(12))
    assert [row[1] for row in log] == [0] * 6 + [1] * 6
    assert max(row[3] for row in log[:6]) == pytest.approx(2e-3)
    assert max(row[3] for row in log[6:]) == pytest.approx(2e-4)
    assert [len(images) for images in work.sources(Phase(on="real+partner"))] == [54]


def load(folder: Path, seed: int) -> dict[str, np.ndarray]:
    return dict(np.load(seed_file(folder, seed)))


def test_results_are_bit_equal_for_any_number_of_workers(classifier: str, tmp_path: Path) -> None:
    work = job(classifier, Phase(on="real+partner", mixup=0.2))
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
    in_memory = job(classifier, *phases)
    on_disk = replace(
        in_memory,
        real=replace(in_memory.real, pixels=stack_on_disk(in_memory.real.pixels)),
        partner=replace(in_memory.partner, pixels=stack_on_disk(in_memory.partner.pixels)),
        evaluated={name: stack_on_disk(pixels) for name, pixels in in_memory.evaluated.items()},
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


@given(st.lists(st.integers(0, 53), min_size=1, max_size=80))
@settings(max_examples=30, deadline=None)
def test_a_union_is_the_two_sets_one_after_the_other(positions: list[int]) -> None:
    first, second = coloured(30, 0), coloured(24, 1)
    union = Union(first, second)
    joined = np.concatenate([first.pixels, second.pixels])
    np.testing.assert_array_equal(union.take(np.array(positions)), joined[positions])
    np.testing.assert_array_equal(union.labels, np.concatenate([first.labels, second.labels]))
    assert len(union) == 54


def test_finished_seeds_are_not_trained_again(classifier: str, tmp_path: Path) -> None:
    work = job(classifier)
    train_seeds(work, [0], tmp_path, 1)
    before = seed_file(tmp_path, 0).stat().st_mtime_ns
    train_seeds(work, [0, 1], tmp_path, 2)
    assert seed_file(tmp_path, 0).stat().st_mtime_ns == before
    assert seed_file(tmp_path, 1).exists()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_killed_at_any_step_goes_on_from_its_checkpoint(
    classifier: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    optimizer: Literal["adamw", "sgd"],
) -> None:
    phases = [  # of 4, 5 and 3 steps
        Phase(on="partner", share=0.3, mixup=0.2, cutmix=1.0),
        Phase(on="real+partner", share=0.45, joint=(1.0, 0.5)),
        Phase(on="real", share=0.25, reset_head=True),
    ]
    work = job(classifier, *phases, recipe=replace(RECIPE, optimizer=optimizer))
    file = tmp_path / "network.pt"

    def opened() -> nn.Module:
        return timm.create_model(
            "test_vit", num_classes=3, img_size=32, drop_rate=0.2, drop_path_rate=0.2
        )

    def trained(last: int, **checkpoint: Any) -> tuple[dict[str, torch.Tensor], list[LogRow]]:
        log: list[LogRow] = []

        def note(row: LogRow) -> None:
            log.append(row)
            if row[0] == last:
                raise KeyboardInterrupt

        model = fit(opened, work.sources, phases, work.recipe, 4, note, **checkpoint)
        return model.state_dict(), log

    with one_thread():
        expected, expected_log = trained(99)
        for last, every, resumed in ((3, 4, 0), (4, 4, 4), (8, 5, 5), (10, 8, 8), (11, 5, 10)):
            with pytest.raises(KeyboardInterrupt):
                trained(last, checkpoint=file, checkpoint_every=every)
            capfd.readouterr()
            found, log = trained(99, checkpoint=file, checkpoint_every=every)
            said = f"{file}: goes on after step {resumed} of 12\n"
            assert capfd.readouterr().err == (said if resumed else "")
            assert log == expected_log
            assert all(torch.equal(found[name], value) for name, value in expected.items())
            discard(file)


def test_checkpoints_go_when_the_seed_is_finished(classifier: str, tmp_path: Path) -> None:
    phases = [Phase(on="real+partner", soft_labels=0.5)]
    train_seeds(job(classifier, *phases), [0], tmp_path, 1)
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
    with pytest.raises(RuntimeError, match="seed 5"):
        train_seeds(job(classifier), [5], tmp_path, 1)
    assert "out of luck" in capfd.readouterr().err


def test_workers_end_with_their_parent_also_in_the_middle_of_a_long_step(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds_module, "fit", lambda *args, **options: time.sleep(60))
    stage = multiprocessing.get_context("fork").Process(
        target=train_seeds, args=(job(classifier), [0], tmp_path, 1)
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


TRAIN = {
    "pretrained": False,
    "steps": 6,
    "batch_size": 8,
    "optimizer": "adamw",
    "lr": 2e-3,
    "schedule": "cosine",
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "warmup_fraction": 0.05,
    "crop_scale": 0.6,
    "flip": True,
    "checkpoint_every": 20,
    "seeds": [0, 3],
    "arms": {
        "real": {"partner": "extra", "phases": [{"on": "real"}]},
        "mixed": {"partner": "synthetic", "phases": [{"on": "real+partner"}]},
        "more_real": {"partner": "extra", "phases": [{"on": "real+partner"}]},
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Image sets and selection tables of a small project, as the stages before leave them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name, size in (("train", 12), ("validation", 6), ("test", 9)):
        write(Path("outputs/real") / name, coloured(size, size), name)
    write(Path("outputs/synthetic/0"), coloured(12, 5), "s")
    write(Path("outputs/synthetic/1"), coloured(12, 6), "t")
    write(Path("outputs/extra"), coloured(0, 0), "e")
    write(Path("outputs/ood/catalogue"), coloured(4, 7), "c")
    write(Path("outputs/ood/corrupted"), coloured(0, 0), "n")
    Path("outputs/selection").mkdir()
    tables = [undecided(ImageSet(f"outputs/synthetic/{replica}")) for replica in (0, 1)]
    synthetic = pd.concat(tables, ignore_index=True)
    synthetic.loc[3, "keep"] = False
    synthetic.to_parquet("outputs/selection/synthetic.parquet")
    undecided(ImageSet("outputs/extra")).to_parquet("outputs/selection/extra.parquet")
    return tmp_path


def run_arm(
    name: str, classifier: str, settings: Train, ood: Sequence[str] = ("corrupted", "catalogue")
) -> Path:
    arm = settings.arms[name]
    out = Path("outputs/train") / name
    selection = Path(f"outputs/selection/{arm.partner}.parquet")
    folders = [Path("outputs/ood") / other for other in ood]
    train_arm(name, arm, settings, classifier, Path("outputs/real"), selection, folders, out)
    return out


def test_an_arm_writes_predictions_log_and_summary(project: Path, classifier: str) -> None:
    out = run_arm("mixed", classifier, Train.model_validate(TRAIN))
    table = pd.read_parquet(out / "predictions.parquet")
    assert table.columns.tolist() == ["seed", "split", "key", "label", "probs"]
    assert table.groupby(["seed", "split"]).size().to_dict() == {
        (seed, split): size
        for seed in (0, 3)
        for split, size in (("validation", 6), ("test", 9), ("ood/catalogue", 4))
    }
    assert table["probs"].iloc[0].dtype == np.float32
    test = table[(table["seed"] == 0) & (table["split"] == "test")]
    assert test["key"].tolist() == ImageSet("outputs/real/test").keys
    log = pd.read_csv(out / "log.csv")
    assert log.columns.tolist() == ["seed", "step", "phase", "loss", "lr"]
    assert len(log) == 12
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == {"real": 12, "partner": 23, "partner_set": "synthetic"}
    assert summary["classes"] == CLASSES
    assert summary["steps"] == [6]


def test_an_arm_is_bit_equal_when_trained_again(project: Path, classifier: str) -> None:
    settings = Train.model_validate(TRAIN)
    out = run_arm("mixed", classifier, settings)
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    for file in Path(".work/train").rglob("seed-*.npz"):
        file.unlink()
    run_arm("mixed", classifier, settings)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first


def test_sets_of_another_look_are_predicted_and_change_nothing_else(
    project: Path, classifier: str
) -> None:
    settings = Train.model_validate(TRAIN)
    whole = pd.read_parquet(run_arm("mixed", classifier, settings) / "predictions.parquet")
    log = (Path("outputs/train/mixed") / "log.csv").read_bytes()
    alone = pd.read_parquet(run_arm("mixed", classifier, settings, ood=()) / "predictions.parquet")
    assert len(list(Path(".work/train").iterdir())) == 2
    assert (Path("outputs/train/mixed") / "log.csv").read_bytes() == log
    rest = whole[~whole["split"].str.startswith("ood/")].reset_index(drop=True)
    assert rest[["seed", "split", "key"]].equals(alone[["seed", "split", "key"]])
    np.testing.assert_array_equal(
        np.stack(rest["probs"].tolist()), np.stack(alone["probs"].tolist())
    )


def test_new_settings_or_images_never_meet_old_results(project: Path, classifier: str) -> None:
    settings = Train.model_validate(TRAIN)
    run_arm("mixed", classifier, settings)
    run_arm("mixed", classifier, Train.model_validate(TRAIN | {"seeds": [0, 3, 4]}))
    assert len(list(Path(".work/train").iterdir())) == 1  # more seeds add to what is there
    run_arm("mixed", classifier, Train.model_validate(TRAIN | {"lr": 1e-3}))
    assert len(list(Path(".work/train").iterdir())) == 2
    table = pd.read_parquet("outputs/selection/synthetic.parquet")
    table.assign(keep=True).to_parquet("outputs/selection/synthetic.parquet")
    run_arm("mixed", classifier, settings)
    assert len(list(Path(".work/train").iterdir())) == 3


def test_an_arm_without_its_extra_images_is_not_trained(
    project: Path, classifier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_arm("more_real", classifier, Train.model_validate(TRAIN))
    assert [file.name for file in out.iterdir()] == ["summary.json"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == {"real": 12, "partner": 0, "partner_set": "extra"}
    assert summary["seeds"] == []
    assert "train.arms.more_real: there are no extra real images" in capsys.readouterr().out


def test_evaluate_leaves_out_what_was_not_trained(
    project: Path,
    classifier: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Train.model_validate(TRAIN)
    for name in settings.arms:
        run_arm(name, classifier, settings)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(
        update={"train": settings, "evaluate": params.evaluate.model_copy(update={"bootstrap": 20})}
    )
    monkeypatch.setattr(evaluate, "load_params", lambda: params)
    evaluate.main()
    metrics = json.loads(Path("metrics/accuracy.json").read_text())
    assert list(metrics["accuracy"]) == ["real", "mixed"]
    assert set(pd.read_parquet("outputs/accuracy.parquet")["arm"]) == {"real", "mixed"}
    assert set(metrics["ood"]["accuracy"]) == {"catalogue"}
    assert set(metrics["ood"]["accuracy"]["catalogue"]) == {"real", "mixed"}
    assert set(pd.read_parquet("outputs/ood.parquet")["set"]) == {"catalogue"}
    assert "the arm more_real is left out" in capsys.readouterr().out


def test_a_class_without_kept_images_is_named(project: Path, classifier: str) -> None:
    table = pd.read_parquet("outputs/selection/synthetic.parquet")
    table.assign(keep=table["label"] != 1).to_parquet("outputs/selection/synthetic.parquet")
    with pytest.raises(
        TruelikeError, match=r"mixed: no image of class 'green'.*select\.min_class_probability"
    ):
        run_arm("mixed", classifier, Train.model_validate(TRAIN))


def test_an_arm_may_use_the_first_replicas_only_and_what_selection_dropped(project: Path) -> None:
    table = pd.read_parquet("outputs/selection/synthetic.parquet").assign(label=0)
    arm = Arm(partner="synthetic", phases=(Phase(on="partner"),))
    first, second = table["folder"].unique()
    pd.testing.assert_frame_equal(partner_rows(table, arm), table)
    own = partner_rows(table, arm.model_copy(update={"replicas": 1}))
    pd.testing.assert_frame_equal(own, table[table["folder"] == first])
    assert not own["keep"].all()
    everything = partner_rows(table, arm.model_copy(update={"selected": False}))
    assert everything["keep"].all()
    assert everything["folder"].unique().tolist() == [first, second]
    assert everything["label"].tolist() == [
        *ImageSet(first).labels,
        *ImageSet(second).labels,
    ]  # as they were made


def test_only_kept_images_are_loaded_in_the_order_of_the_sets(project: Path) -> None:
    table = pd.read_parquet("outputs/selection/synthetic.parquet")
    kept = load_kept(table, CLASSES)
    expected = np.concatenate(
        [np.delete(coloured(12, 5).pixels, 3, axis=0), coloured(12, 6).pixels]
    )
    np.testing.assert_array_equal(kept.pixels, expected)
    np.testing.assert_array_equal(kept.labels, np.delete(np.arange(24) % 3, 3))
    relabelled = load_kept(table.assign(label=(table["label"] + 1) % 3), CLASSES)
    np.testing.assert_array_equal(relabelled.labels, (kept.labels + 1) % 3)
    np.testing.assert_array_equal(relabelled.pixels, kept.pixels)
    with pytest.raises(TruelikeError, match="classes are not those"):
        load_kept(table, ["a", "b", "c"])

"""Shadows: images outside its half never reach one, a killed one continues, and copies of members
are noticed.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.models import float32
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided, write_features, write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.privacy import shadows as shadow_module
from truelike.privacy.lira import infer
from truelike.privacy.shadows import Pipeline, answer, run_shadow
from truelike.sources.split import halves

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["boot", "bag"]


def images_of(pixels: np.ndarray, folder: Path, labels: np.ndarray | None = None) -> ImageSet:
    """An image set of two classes by turns."""
    own = np.arange(len(pixels)) % 2 if labels is None else labels
    samples = [
        Sample(f"k{number}", int(label), image)
        for number, (label, image) in enumerate(zip(own, pixels, strict=True))
    ]
    write_image_set(folder, samples, CLASSES)
    return ImageSet(folder)


@pytest.fixture
def pipeline(
    generator: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Pipeline:
    """The pipeline of params.yaml with tiny models and few steps, in an empty project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("net.yaml").write_text("timm: test_resnet\n")
    params = load_params(ROOT / "recipes/default.yaml")
    return Pipeline(
        prompts=params.prompts,
        visual_guidance=params.visual_guidance.model_copy(update={"kind": "class_mean"}),
        invert=params.invert.model_copy(update={"steps": 2, "batch_size": 2, "initializer": "a"}),
        adapt=params.adapt.model_copy(update={"steps": 2, "batch_size": 2}),
        synthesize=params.synthesize.model_copy(
            update={"replicas": (0,), "steps": 3, "strength": 0.6}
        ),
        select=params.select.model_copy(
            update={"classifier_steps": 2, "min_class_probability": 0.0}
        ),
        train=params.train.model_copy(update={"steps": 3, "batch_size": 4}),
        arms=("real", "synthetic"),
        generator=float32(generator),
        encoder=float32(encoder),
        classifier="net.yaml",
    )


def run(
    pipeline: Pipeline, folder: Path, changed: int | None = None
) -> tuple[list[str], pd.DataFrame]:
    """Run shadow 1 on four of eight images, k0 to k3; the sha256 of its synthetic images, and its
    answers.

    `changed`: the image whose pixels, caption and features are others.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    features = rng.normal(size=(8, 32)).astype(np.float32)
    captions = ["red"] * 8
    if changed is not None:
        pixels[changed], features[changed], captions[changed] = (
            255 - pixels[changed],
            -features[changed],
            "blue",
        )
    real = images_of(pixels, folder / "real")
    write_table(
        folder / "captions.parquet",
        pd.DataFrame({"key": real.keys, "caption": captions, "truncated": False}),
    )
    write_features(folder / "features.parquet", real.keys, features)
    before = set(Path(".work").glob("shadow/*/synthetic"))
    run_shadow(
        1,
        pipeline,
        ["k0", "k1", "k2", "k3"],
        real=real.folder,
        captions=folder / "captions.parquet",
        features=folder / "features.parquet",
        out=folder / "out",
    )
    (made,) = set(Path(".work").glob("shadow/*/synthetic")) - before
    return ImageSet(made / "0").index["sha256"].tolist(), pd.read_parquet(
        folder / "out" / "confidences.parquet"
    )


def test_images_outside_its_half_do_not_reach_a_shadow(pipeline: Pipeline, tmp_path: Path) -> None:
    images, answers = run(pipeline, tmp_path / "a")
    assert len(images) == 4
    assert answers[["arm", "key"]].to_numpy().tolist() == [
        [arm, f"k{number}"] for arm in ("real", "synthetic") for number in range(8)
    ]
    same, others = run(pipeline, tmp_path / "b", changed=6)
    assert same == images
    assert (others["logit"] == answers["logit"]).tolist() == [key != "k6" for key in answers["key"]]
    assert run(pipeline, tmp_path / "c", changed=2)[0] != images


def test_a_stopped_shadow_continues_with_what_is_finished(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(*arguments: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(shadow_module, "train_seeds", stop)
        with pytest.raises(Stopped):
            run(pipeline, tmp_path / "a")
    made = {file: file.stat().st_mtime_ns for file in Path(".work").rglob("*.tar")}
    assert made
    with monkeypatch.context() as patch:
        patch.setattr(shadow_module, "select", stop)
        run_shadow(
            1,
            pipeline,
            ["k0", "k1", "k2", "k3"],
            real=tmp_path / "a" / "real",
            captions=tmp_path / "a" / "captions.parquet",
            features=tmp_path / "a" / "features.parquet",
            out=tmp_path / "a" / "out",
        )
    assert {file: file.stat().st_mtime_ns for file in made} == made
    continued = pd.read_parquet(tmp_path / "a" / "out" / "confidences.parquet")
    Path("elsewhere").mkdir()
    monkeypatch.setenv("DVC_ROOT", "elsewhere")
    monkeypatch.setattr(
        Path, "glob", lambda self, pattern, glob=Path.glob: glob(Path("elsewhere") / self, pattern)
    )
    pd.testing.assert_frame_equal(run(pipeline, tmp_path / "b")[1], continued)


def test_a_shadow_sees_each_image_as_often_and_draws_its_own_random_numbers(
    pipeline: Pipeline,
) -> None:
    shadow = pipeline.on_half(3)
    for stage in ("invert", "adapt", "synthesize", "select"):
        assert getattr(shadow, stage).seed == 3
    found = (
        shadow.invert.steps,
        shadow.adapt.steps,
        shadow.select.classifier_steps,
        shadow.train.steps,
    )
    assert found == (1, 1, 1, 1)  # of 2, 2, 2 and 3
    assert shadow.synthesize.steps == pipeline.synthesize.steps


def patches(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random images of four by four patches, uint8 (count, 16, 16, 3)."""
    return rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)


def copies(pixels: np.ndarray) -> np.ndarray:
    """Near-copies: recompressed as JPEG and a little brighter."""
    made = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        made.append(
            np.clip(np.asarray(Image.open(buffer)).astype(int) + 4, 0, 255).astype(np.uint8)
        )
    return np.stack(made)


def attacked(
    pipeline: Pipeline, make: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> dict[str, dict]:
    """What the attacks find about the arm `synthetic` where `make` turns a half's images into the
    synthetic ones.
    """
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(48) % 2)
    real = images_of(patches(48, rng), tmp_path / "real", labels)
    keys = real.keys
    tables, members = [], []
    for number in range(6):
        own: Sequence[int] = halves(range(48), number // 2, str, lambda row: str(labels[row]), 0)[
            number % 2
        ]
        half = images_of(real.load(own), tmp_path / f"half-{number}", labels[own])
        made = images_of(make(half.load()), tmp_path / f"made-{number}", half.labels)
        arms = {"synthetic": pipeline.train.arms["synthetic"]}
        answers = answer(
            pipeline, arms, half, undecided(made), real, number, tmp_path / f"work-{number}"
        )
        identity = {"arm": "synthetic", "shadow": number, "key": keys, "label": real.labels}
        tables.append(pd.DataFrame(identity | {"logit": answers["synthetic"]}))
        members += [{"shadow": number, "key": keys[row]} for row in own]
    return infer(tables, pd.DataFrame(members), 200, 0)[0]["arms"]["synthetic"]


def test_near_copies_of_members_in_the_synthetic_set_are_detected_and_unrelated_images_tell_nothing(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    recipe = {
        "steps": 60,
        "batch_size": 24,
        "label_smoothing": 0.0,
        "crop_scale": 1.0,
        "flip": False,
    }
    overfitted = replace(pipeline, train=pipeline.train.model_copy(update=recipe))
    found = attacked(overfitted, copies, tmp_path / "copies")
    assert min(attack["auc"]["low"] for attack in found.values()) > 0.7
    rng = np.random.default_rng(1)
    found = attacked(overfitted, lambda pixels: patches(len(pixels), rng), tmp_path / "others")
    for attack in found.values():
        assert attack["auc"]["low"] < 0.5 < attack["auc"]["high"]

"""The whole pipeline as a user runs it: a copy of the project, a folder of awkward images,
`dvc repro`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from truelike.imageset.reading import ImageSet

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("red thing", "Grüner Kreis")
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
    "HF_HUB_OFFLINE": "1",
}
SMALL = {
    "data.shots": 6,
    "invert.steps": 2,
    "invert.batch_size": 4,
    "adapt.steps": 2,
    "adapt.batch_size": 4,
    "naive.steps": 2,
    "synthesize.steps": 4,
    "synthesize.replicas": [0],
    "synthesize.shard_size": 8,
    "select.classifier_steps": 5,
    "select.min_class_probability": 0.0,
    "train.steps": 6,
    "train.batch_size": 8,
    "train.seeds": [0, 1],
    "evaluate.bootstrap": 100,
    "audit.bootstrap": 100,
    "audit.neighbours": 2,
}


def run(*command: str, cwd: Path, ok: bool = True) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=900
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output[-6000:]
    return output


def set_params(project: Path, values: dict) -> None:
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    for dotted, value in values.items():
        section, name = dotted.split(".")
        params[section][name] = value
    for arm in ("naive", "mixed", "bridged"):
        params["train"]["arms"].pop(arm, None)
    yaml.dump(params, project / "params.yaml")


def draw(label: int, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A noisy picture whose colour tells its class."""
    pixels = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    pixels[size[0] // 4 : -(size[0] // 4), size[1] // 4 : -(size[1] // 4), label] += 150
    return Image.fromarray(pixels)


def awkward_folder(folder: Path) -> None:
    """One folder per class, with every kind of file that people have."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(20):
            draw(label, rng, (40, 30 + number)).save(place / f"photo {number}.png")
        draw(label, rng, (40, 40)).convert("RGBA").save(place / "UPPER.PNG")
        draw(label, rng, (40, 40)).convert("P").save(place / "palette.gif")
        draw(label, rng, (40, 40)).convert("CMYK").save(place / "été.jpg")
        draw(label, rng, (5, 4)).save(place / "tiny.bmp")
        deep = (rng.integers(0, 2**16, (40, 40))).astype(np.uint16)
        Image.fromarray(deep).save(place / "deep.png")
        rotated = draw(label, rng, (40, 20))
        exif = rotated.getexif()
        exif[0x0112] = 6
        rotated.save(place / "rotated.jpeg", exif=exif)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree with small settings and an image folder as its source."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        if (ROOT / name).is_file() and not name.startswith(
            ("foundation/", "docs/", "dvc.lock", "metrics/")
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    shutil.copyfile(folder / "recipes/default.yaml", folder / "params.yaml")
    awkward_folder(folder / "pictures")
    set_params(folder, SMALL | {"data.source": "pictures"})
    (folder / ".dvc" / "config.local").unlink(missing_ok=True)
    run("git", "init", "-q", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-qm", "start", cwd=folder)
    run("dvc", "repro", cwd=folder)
    return folder


@pytest.mark.slow
def test_an_image_folder_becomes_a_report_without_a_code_edit(project):
    report = (project / "reports/report.html").read_text()
    accuracy = json.loads((project / "metrics/accuracy.json").read_text())
    assert accuracy["verdict"]["headline"] in report
    assert set(accuracy["accuracy"]) == {"real", "synthetic", "bridged_pp", "more_real"}
    train = ImageSet(project / "outputs/real/train")
    assert sorted(train.class_names) == sorted(CLASSES)
    assert train.load().shape == (12, 32, 32, 3)
    every = [
        ImageSet(project / "outputs" / name)
        for name in ("real/train", "real/validation", "real/test", "extra")
    ]
    assert sum(map(len, every)) == 2 * 26
    synthetic = ImageSet(project / "outputs/synthetic/0")
    assert set(synthetic.index["source_key"]) == set(train.keys)
    assert synthetic.problems() == []


@pytest.mark.slow
def test_held_out_images_leave_no_trace_in_what_was_learned(project):
    held_out = {
        key
        for name in ("validation", "test")
        for key in ImageSet(project / "outputs/real" / name).keys
    }
    assert held_out
    for table in ("captions", "features", "selection/synthetic"):
        keys = set(pd.read_parquet(project / f"outputs/{table}.parquet")["key"])
        assert keys.isdisjoint(held_out)
    for set_name in ("naive", "synthetic"):
        index = ImageSet(project / "outputs" / set_name / "0").index
        assert set(index["source_key"]).isdisjoint(held_out)


@pytest.mark.slow
def test_a_second_repro_does_nothing_and_a_second_replica_keeps_the_first(project):
    assert "Data and pipelines are up to date" in run("dvc", "repro", cwd=project)
    before = (project / "outputs/synthetic/0/shard-00000.tar").read_bytes()
    set_params(project, {"synthesize.replicas": [0, 1]})
    output = run("dvc", "repro", "synthesize", cwd=project)
    assert "Running stage 'synthesize@1'" in output
    assert "Running stage 'synthesize@0'" not in output
    assert (project / "outputs/synthetic/0/shard-00000.tar").read_bytes() == before
    set_params(project, {"synthesize.replicas": [0]})


@pytest.mark.slow
def test_every_image_can_be_made_again_from_its_row(project):
    key = ImageSet(project / "outputs/synthetic/0").keys[5]
    assert "the same bytes as stored" in run(
        "truelike", "regenerate", "outputs/synthetic/0", key, cwd=project
    )


@pytest.mark.slow
def test_the_optional_stages_can_be_turned_off(project):
    off = {"caption.by": "none", "invert.enabled": False, "adapt.enabled": False, "select.sets": []}
    yaml = YAML(typ="safe", pure=True)
    before = yaml.load(project / "params.yaml")
    set_params(project, off)
    run("dvc", "repro", "train@synthetic", cwd=project)
    index = ImageSet(project / "outputs/synthetic/0").index
    assert set(index["prompt"]) == {f"a photo of a {name}" for name in CLASSES}
    set_params(
        project, {dotted: before[dotted.split(".")[0]][dotted.split(".")[1]] for dotted in off}
    )


@pytest.mark.slow
def test_a_sweep_value_in_scientific_notation_arrives_as_a_number(project):
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "result", cwd=project)
    run("dvc", "exp", "run", "adapt", "-S", "adapt.lr=5e-5", cwd=project)
    assert (
        "5e-05" in (project / "params.yaml").read_text()
        or "5e-5" in (project / "params.yaml").read_text()
    )
    output = run("dvc", "exp", "run", "adapt", "-S", "adapt.lr=fast", cwd=project, ok=False)
    assert "adapt.lr" in output
    assert "'fast'" in output
    set_params(project, {"adapt.lr": 1e-3})


@pytest.mark.slow
def test_a_mistyped_parameter_is_named_with_the_nearest_valid_one(project):
    output = run("dvc", "exp", "run", "adapt", "-S", "+adapt.rnak=8", cwd=project, ok=False)
    assert "unknown parameter 'adapt.rnak'; did you mean 'rank'?" in output
    run("git", "checkout", "-q", "params.yaml", cwd=project)


@pytest.mark.slow
def test_membership_inference_is_made_of_stages_that_are_there_when_asked_for(project):
    assert json.loads((project / "metrics/privacy.json").read_text())["arms"] == {}
    assert '<h2 id="privacy">' not in (project / "reports/report.html").read_text()
    arms, shadows = ["real", "synthetic"], [0, 1, 2, 3, 4, 5]
    before = (project / "params.yaml").read_bytes()
    set_params(
        project, {"privacy.shadows": shadows, "privacy.arms": arms, "privacy.bootstrap": 100}
    )
    run("dvc", "repro", cwd=project)
    keys = ImageSet(project / "outputs/real/train").keys
    halves = pd.read_parquet(project / "outputs/privacy/halves.parquet")
    assert halves["key"].value_counts().to_dict() == dict.fromkeys(keys, 3)
    for number in shadows:
        answers = pd.read_parquet(project / f"outputs/privacy/shadows/{number}/confidences.parquet")
        assert answers["key"].tolist() == keys * len(arms)
        assert np.isfinite(answers["logit"]).all()
    metrics = json.loads((project / "metrics/privacy.json").read_text())
    assert {name: metrics[name] for name in ("shadows", "images", "trials")} == {
        "shadows": 6,
        "images": 12,
        "trials": 36,
    }
    assert list(metrics["arms"]) == arms
    assert metrics["arms"]["synthetic"]["lira_online"]["tpr_at_1_in_100"] is None  # of 36 trials
    assert set(json.loads((project / "metrics/summary.json").read_text())["membership"]) == set(
        arms
    )
    assert '<h2 id="privacy">' in (project / "reports/report.html").read_text()
    assert "Data and pipelines are up to date" in run("dvc", "repro", cwd=project)
    (project / "params.yaml").write_bytes(before)
    output = run("dvc", "repro", "attack", cwd=project)
    assert "shadow" not in output.replace("outputs/privacy/shadows", "")
    assert json.loads((project / "metrics/privacy.json").read_text())["arms"] == {}

"""Arms: their images, their files, and what they refuse."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from stages import evaluate
from tests.support.classifiers import (
    CLASSES,
    TRAIN,
    coloured,
    write,
)
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided
from truelike.runtime.errors import TruelikeError
from truelike.training.arms import check_partner, partner_rows, train_arm
from truelike.training.images import LabelledImages, load_images, load_kept
from truelike.training.loop import predict
from truelike.training.settings import Arm, Phase, Train
from truelike.training.trained import open_trained

ROOT = Path(__file__).resolve().parents[2]


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


def test_an_arm_on_real_images_alone_decodes_no_others(
    project: Path, classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [{"on": "real"}]
    chosen = TRAIN | {"arms": {"real": {"partner": "synthetic", "phases": phases}}}
    decoded = []
    monkeypatch.setattr(
        "truelike.training.arms.load_kept",
        lambda rows, *rest: decoded.append(len(rows)) or load_kept(rows, *rest),
    )
    out = run_arm("real", classifier, Train.model_validate(chosen))
    assert decoded == [0]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == {"real": 12, "partner": 23, "partner_set": "synthetic"}


def test_an_arm_is_bit_equal_when_trained_again(project: Path, classifier: str) -> None:
    settings = Train.model_validate(TRAIN)
    out = run_arm("mixed", classifier, settings)
    first = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert len(first) == 5
    for file in Path(".work/train").rglob("seed-*.npz"):
        file.unlink()
    run_arm("mixed", classifier, settings)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == first


def test_networks_are_kept_as_asked_and_say_what_the_predictions_say(
    project: Path, classifier: str
) -> None:
    chosen = TRAIN | {"keep": "none"}
    out = run_arm("mixed", classifier, Train.model_validate(chosen))
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    assert set(files) == {"predictions.parquet", "log.csv", "summary.json"}
    out = run_arm("mixed", classifier, Train.model_validate(chosen | {"keep": "all"}))
    assert {file.name for file in (out / "networks").iterdir()} == {"0", "3"}
    assert {name: (out / name).read_bytes() for name in files} == files
    table = pd.read_parquet(out / "predictions.parquet")
    test = ImageSet("outputs/real/test")
    for seed in (0, 3):
        network = open_trained(out / "networks" / str(seed))
        assert network.class_names == CLASSES
        probs = table["probs"][(table["seed"] == seed) & (table["split"] == "test")]
        np.testing.assert_allclose(
            predict(network.model, load_images(test)), np.stack(probs.tolist()), atol=1e-5
        )
        config = json.loads((out / "networks" / str(seed) / "config.json").read_text())
        assert config["training"]["arm"] == "mixed"
        assert config["training"]["seed"] == seed
        assert config["training"]["optimization"]["steps"] == 6


def test_an_arm_may_stream_its_images(project: Path, classifier: str) -> None:
    chosen = {"streaming": True, "seeds": [0], "steps": 3}
    out = run_arm("mixed", classifier, Train.model_validate(TRAIN | chosen))
    network = open_trained(out / "networks/0")
    table = pd.read_parquet(out / "predictions.parquet")
    expected = predict(network.model, load_images(ImageSet("outputs/real/test")))
    found = np.stack(table["probs"][table["split"] == "test"].tolist())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isfinite(pd.read_csv(out / "log.csv")["loss"]).all()


def test_images_are_scaled_to_the_resolution_of_the_networks(
    project: Path, classifier: str
) -> None:
    out = run_arm("mixed", classifier, Train.model_validate(TRAIN | {"resolution": 48}))
    (folder,) = (out / "networks").iterdir()
    network = open_trained(folder)
    assert network.resolution == 48
    table = pd.read_parquet(out / "predictions.parquet")
    own = table[table["seed"] == int(folder.name)]
    for split, name in (("test", "real/test"), ("ood/catalogue", "ood/catalogue")):
        images = load_images(ImageSet(Path("outputs") / name), 48)
        assert images.pixels.shape[1:] == (48, 48, 3)
        expected = np.stack(own["probs"][own["split"] == split].tolist())
        np.testing.assert_allclose(predict(network.model, images), expected, atol=1e-5)


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
    params = load_params(ROOT / "recipes/default.yaml")
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
    kept = sorted(Path("outputs/train/mixed/networks").glob("*/model.safetensors"))
    assert metrics["verdict"]["arm"] == "mixed"
    assert Path("outputs/classifier/model.safetensors").read_bytes() == kept[0].read_bytes()
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


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"on": "real", "joint": [1, 1]}, "joint .* needs on: real\\+partner"),
        ({"on": "real", "soft_labels": 1.0}, "soft_labels are of partner images"),
        (
            {"on": "real", "proxy_guidance": 0.1},
            "the arm x has proxy_guidance, which needs train.pretrained",
        ),
    ],
)
def test_arms_that_cannot_be(phase: dict, message: str) -> None:
    arm = {"partner": "synthetic", "phases": [phase]}
    with pytest.raises(ValidationError, match=message):
        Train.model_validate(TRAIN | {"arms": TRAIN["arms"] | {"x": arm}})


def images_of_classes(*labels: int) -> LabelledImages:
    return LabelledImages(np.zeros((len(labels), 2, 2, 3), np.uint8), np.array(labels))


def test_a_class_that_was_never_made_may_be_missing_if_real_images_are_seen():
    first = Phase(on="partner", share=0.5)
    bridged = Arm(partner="synthetic", phases=(first, Phase(on="real", share=0.5)))
    alone = Arm(partner="synthetic", phases=(Phase(on="partner"),))
    names, images = ["hat", "bag"], images_of_classes(0, 0)
    check_partner("bridged", bridged, images, names, [0, 0])
    with pytest.raises(TruelikeError, match=r"class 'bag' .* gave it none: choose another"):
        check_partner("synthetic", alone, images, names, [0, 0])
    for arm in (bridged, alone):  # selection dropped them all
        with pytest.raises(TruelikeError, match=r"class 'bag' .* lower select\.min_class"):
            check_partner("mixed", arm, images, names, [0, 0, 1])

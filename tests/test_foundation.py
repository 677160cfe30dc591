"""The embedded data and models: what they were made from, what never went in, and that they open as
on the hub.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor

from foundation import backbone, codec, generator, image_tower, judge, training, vae
from foundation.attributes import CLASS_NAMES, GROUNDS, HELD_OUT
from foundation.captions import describe, phrasings
from foundation.catalogue import rendered
from foundation.corpus import draw_attributes, measure, original_look, render
from foundation.muon import Muon, orthogonalise
from foundation.settings import Settings, Training
from truelike.runtime.rooms import modules_of, rooms_of
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
FASHION = ROOT / "data" / "fashion" / "data"
STAGES = read_yaml(ROOT / "foundation" / "dvc.yaml")["stages"]
COUNTS = {"train": 100, "validation": 50, "test": 500}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_modules_it_imports_and_no_other_code(stage: str) -> None:
    """As for the pipeline itself, paths and the reader of the settings are not listed."""
    folder = ROOT / "foundation"
    start = folder / f"{stage}.py"
    unlisted = {folder / name for name in ("__init__.py", "paths.py", "settings.py")}
    modules = ({start} | modules_of(start, folder)) - unlisted
    rooms = {f"../src/truelike/{room}" for module in modules for room in rooms_of(module)}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py") or "src" in dep}
    assert declared == {module.name for module in modules} | rooms


@pytest.fixture(scope="module")
def corpus_index() -> pd.DataFrame:
    return pd.read_parquet(ROOT / "foundation" / "corpus_index.parquet")


def fashion_images(split: str) -> tuple[list[np.ndarray], list[int]]:
    rows = pq.read_table(FASHION / f"{split}-00000-of-00001.parquet").to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    return pixels, [row["label"] for row in rows]


@pytest.mark.parametrize("split", COUNTS)
def test_the_embedded_set_has_the_stated_images_of_each_class(split: str) -> None:
    images, labels = fashion_images(split)
    assert np.bincount(labels).tolist() == [COUNTS[split]] * 10
    assert {image.shape for image in images} == {(28, 28)}


def test_no_image_of_the_embedded_set_was_rendered_into_the_corpus(
    corpus_index: pd.DataFrame,
) -> None:
    rendered = set(corpus_index["sha256"])
    assert len(rendered) > 40_000
    for split in COUNTS:
        for image in fashion_images(split)[0]:
            assert hashlib.sha256(image.tobytes()).digest()[:8] not in rendered
    assert corpus_index["source"].max() < Settings.load().fashion.pool_start


def test_the_held_out_combination_was_never_rendered_and_its_words_were(
    corpus_index: pd.DataFrame,
) -> None:
    combinations = set(zip(corpus_index["colour"], corpus_index["ground"], strict=True))
    assert combinations.isdisjoint(HELD_OUT)
    for colour, ground in HELD_OUT:
        assert {(colour, other) for other in GROUNDS if other != ground} <= combinations
        assert any(other_ground == ground for _, other_ground in combinations)


@pytest.mark.parametrize("seed", range(20))
def test_drawing_attributes_never_yields_the_held_out_combination(seed: int) -> None:
    drawn = draw_attributes(2000, Settings.load().corpus, np.random.default_rng(seed))
    assert set(zip(drawn["colour"], drawn["ground"], strict=True)).isdisjoint(HELD_OUT)


def test_captions_state_what_was_rendered() -> None:
    images, labels = fashion_images("validation")
    pixels, classes = np.stack(images[:64]), np.array(labels[:64], np.uint8)
    rng = np.random.default_rng(0)
    table = pd.concat(
        [draw_attributes(64, Settings.load().corpus, rng), measure(pixels, classes)], axis=1
    )
    table["class"] = np.array(CLASS_NAMES)[classes]
    drawn = render(pixels, table, rng)
    assert drawn.shape == (64, 32, 32, 3)
    assert drawn.dtype == np.uint8
    for row, image in zip(table.to_dict("records"), drawn, strict=True):
        caption = describe(row)
        assert row["colour"] in caption
        assert f"on a {row['ground']} background" in caption
        assert sum(share for _, share, _ in phrasings(row)) == pytest.approx(1)
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]].mean() / 255
        if row["ground"] in ("black", "white"):
            assert (corners < 0.25) == (row["ground"] == "black")


def test_the_original_look_is_the_image_padded_with_black() -> None:
    images = np.stack(fashion_images("validation")[0][:4])
    look = original_look(images)
    assert look.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(look[:, 2:-2, 2:-2, 0], images)
    assert look[:, :2].max() == 0


def test_the_catalogue_set_is_the_test_garments_in_the_corpus_look(
    corpus_index: pd.DataFrame,
) -> None:
    shipped = pq.read_table(
        ROOT / "data" / "catalogue" / "data" / "test-00000-of-00001.parquet"
    ).to_pylist()
    drawn = rendered()
    assert drawn["label"].value_counts().to_dict() == dict.fromkeys(range(10), 50)
    assert [row["image"]["path"] for row in shipped] == drawn["path"].tolist()
    assert [row["label"] for row in shipped] == drawn["label"].tolist()
    for row, pixels in zip(shipped, drawn["pixels"], strict=True):
        found = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).astype(int)
        assert np.abs(found - pixels).max() <= 1  # interpolation may round otherwise on another CPU
    assert set(zip(drawn["colour"], drawn["ground"], strict=True)).isdisjoint(HELD_OUT)
    tested = {
        row["image"]["path"]
        for row in pq.read_table(FASHION / "test-00000-of-00001.parquet").to_pylist()
    }
    assert set(drawn["path"]) < tested


def test_the_models_open_with_stock_classes() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "generator", dtype=torch.float32)
    encoder = CLIPModel.from_pretrained(MODELS / "encoder", dtype=torch.float32)
    words = CLIPProcessor.from_pretrained(MODELS / "encoder").tokenizer
    BlipForConditionalGeneration.from_pretrained(MODELS / "captioner")
    BlipProcessor.from_pretrained(MODELS / "captioner")
    assert pipeline.unet.config.cross_attention_dim == encoder.config.projection_dim
    assert pipeline.tokenizer.get_vocab() == words.get_vocab()
    for name, value in encoder.text_model.state_dict().items():
        torch.testing.assert_close(value, pipeline.text_encoder.state_dict()[name])
    network = timm.create_model(f"local-dir:{MODELS / 'backbone'}", pretrained=True, num_classes=7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_the_weights_are_small_safetensors_and_those_that_were_measured() -> None:
    weights = sorted(MODELS.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) < 24_000_000
    assert not [
        path
        for path in MODELS.rglob("*")
        if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")
    ]
    measured = json.loads((ROOT / "foundation" / "metrics.json").read_text())["sha256"]
    assert measured == {
        path.relative_to(MODELS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in weights
    }


def test_class_names_are_those_of_the_embedded_set() -> None:
    metadata = pq.read_schema(FASHION / "test-00000-of-00001.parquet").metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == list(CLASS_NAMES)


TRAIN_A_VAE = """
import sys
from pathlib import Path

import torch

from foundation import training, vae
from foundation.settings import (Training)

training.BUILD, training.CHECKPOINT_EVERY = Path(sys.argv[1]), 2
torch.set_num_threads(1)
pixels = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=pixels)
settings = Training(seed=0, steps=12, batch_size=2, learning_rate=1e-3)
vae.train(images, settings, []).save_pretrained(sys.argv[1])
"""


def start_training(build: Path, scratch: Path) -> subprocess.Popen:
    environment = {**os.environ, "DVC_ROOT": str(scratch)}
    command = [sys.executable, "-c", TRAIN_A_VAE, str(build)]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


@pytest.mark.slow
def test_a_killed_training_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    assert start_training(tmp_path / "whole", tmp_path / "scratch").wait() == 0
    killed = start_training(tmp_path / "resumed", tmp_path / "other")
    while not list((tmp_path / "other").rglob("checkpoint.pt")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "resumed" / "config.json").exists()
    (checkpoint,) = (tmp_path / "other").rglob("checkpoint.pt")
    assert 2 <= torch.load(checkpoint, weights_only=True)["step"] < 12
    assert start_training(tmp_path / "resumed", tmp_path / "other").wait() == 0
    whole, resumed = (
        tmp_path / name / "diffusion_pytorch_model.safetensors" for name in ("whole", "resumed")
    )
    assert whole.read_bytes() == resumed.read_bytes()


def test_the_log_is_whole_after_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(training, "BUILD", tmp_path)
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 4)
    settings = Training(seed=0, steps=8, batch_size=2, learning_rate=1.0)
    taken = []

    def one_step(draw: training.Draw) -> dict[str, float]:
        if draw.step == 6 and 6 not in taken:
            taken.append(6)
            raise KeyboardInterrupt
        taken.append(draw.step)
        return {"loss": draw.step, **({"held_out": 5.0} if draw.step == 3 else {})}

    with pytest.raises(KeyboardInterrupt):
        training.fit("toy", settings, 5, {}, one_step, [])
    training.fit("toy", settings, 5, {}, one_step, [])
    assert taken == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7]
    log = pd.read_csv(tmp_path / "logs" / "toy.csv")
    assert log["step"].tolist() == [2, 4, 6, 8]
    assert log["loss"].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert log["held_out"].notna().tolist() == [False, True, False, False]


def test_an_epoch_holds_every_image_once_and_steps_repeat_their_draws() -> None:
    settings = Training(seed=3, steps=8, batch_size=5, learning_rate=1.0)
    draws = [training.draw(settings, 20, step) for step in range(8)]
    for epoch in (draws[:4], draws[4:]):
        assert sorted(torch.cat([draw.rows for draw in epoch]).tolist()) == list(range(20))
    assert draws[0].rows.tolist() != draws[4].rows.tolist()
    again = training.draw(settings, 20, 6)
    assert torch.equal(again.rows, draws[6].rows)
    assert again.rng.random() == draws[6].rng.random() != draws[5].rng.random()
    first = torch.rand(1, generator=again.generator)
    assert torch.equal(first, torch.rand(1, generator=draws[6].generator))


@pytest.mark.parametrize(("hold", "expected"), [(0.0, (0.05, 0.5, 0.0)), (0.75, (0.05, 1.0, 0.0))])
def test_the_learning_rate_warms_up_holds_and_ends_at_zero(
    hold: float, expected: tuple[float, float, float]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    rates = []
    decay = training.schedule(optimizer, 200, hold)
    for _ in range(201):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        decay.step()
    assert (rates[0], rates[100], rates[200]) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.5 < values.min() <= values.max() < 1.3


def test_muon_steps_matrices_by_its_own_rule_and_the_rest_by_adamw() -> None:
    layers = [torch.nn.Linear(6, 4) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    pixels = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    for layer, kind in zip(layers, (Muon, torch.optim.AdamW), strict=True):
        optimizer = kind(layer.parameters(), 0.1, weight_decay=0.0)
        before = layer.weight.detach().clone()
        (layer(pixels) - 1).square().mean().backward()
        optimizer.step()
        moved = (layer.weight.detach() - before).square().mean().sqrt()
        assert 0.005 < moved < 0.2
    torch.testing.assert_close(layers[0].bias, layers[1].bias)
    assert not torch.equal(layers[0].weight, layers[1].weight)


def test_changed_looks_stay_in_range_and_leave_some_images_as_they_are() -> None:
    images = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    changed = vae.change_look(images, torch.Generator().manual_seed(1))
    assert changed.abs().max() <= 1
    same = (changed == images).flatten(1).all(1).float().mean()
    assert 0.1 < same < 0.4  # 0.75 to the fifth power, and orders of channels that are the old one
    assert (changed.std(1).flatten(1).amax(1) < 1e-6).any()  # grey


def test_standardised_latents_have_no_mean_and_decode_as_before() -> None:
    torch.manual_seed(0)
    autoencoder = vae.build().eval()
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    before = codec.reconstruct(autoencoder, images)
    vae.standardise(autoencoder, images)
    with torch.no_grad():
        latents = autoencoder.encode(training.to_unit(images)).latent_dist.mean
    latents = latents * autoencoder.config.scaling_factor
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert latents.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    assert (codec.reconstruct(autoencoder, images).int() - before.int()).abs().max() <= 1


def test_classifiers_see_the_same_images_real_and_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(400) % 10
    monkeypatch.setattr(codec, "held_out_originals", lambda: (images, labels))
    monkeypatch.setattr(codec, "reconstruct", lambda vae, images: images)
    monkeypatch.setattr(codec, "STEPS", 2)
    found = codec.measure(vae.build(), Settings.load().evaluation)
    assert found["accuracy_lost"] == found["accuracy_lost_standard_error"] == 0
    assert found["psnr_original_look"] == pytest.approx(100)
    chosen = codec.draw_shots(labels, 0)
    assert np.bincount(labels[chosen]).tolist() == [codec.SHOTS] * 10


@pytest.fixture
def small_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vae.AutoencoderKL:
    """A corpus of 12 images, of which 4 are held out too, for the generator, and an untrained
    autoencoder.
    """
    pixels, labels = fashion_images("validation")
    settings, rng = Settings.load(), np.random.default_rng(0)
    classes = np.array(labels[:12], np.uint8)
    table = pd.concat(
        [draw_attributes(12, settings.corpus, rng), measure(np.stack(pixels[:12]), classes)], axis=1
    )
    table["class"] = np.array(CLASS_NAMES)[classes]
    drawn = render(np.stack(pixels[:12]), table, rng)
    images = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    (tmp_path / "index").write_text("")
    torch.manual_seed(0)
    autoencoder = vae.build().eval()
    autoencoder.save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(
        generator,
        "load_corpus",
        lambda split: (images, table) if split == "train" else (images[:4], table[:4]),
    )
    monkeypatch.setattr(generator, "CORPUS_INDEX", tmp_path / "index")
    monkeypatch.setattr(generator, "VAE", tmp_path / "vae")
    monkeypatch.setattr(generator, "ENCODER", MODELS / "encoder")
    monkeypatch.setattr(generator, "GENERATOR", tmp_path / "generator")
    monkeypatch.setattr(training, "BUILD", tmp_path)
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return autoencoder


def test_the_generator_trains_on_latents_that_are_encoded_once(
    small_corpus: vae.AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = generator.encode
    monkeypatch.setattr(
        generator, "encode", lambda vae, images: encoded.append(len(images)) or encode(vae, images)
    )
    monkeypatch.setattr(generator, "MEASURE_EVERY", 2)
    few = Settings.load().generator.model_copy(update={"steps": 2, "batch_size": 3})
    for seed in (0, 1):
        unet = generator.build()
        trained = generator.train(
            unet, small_corpus, few.model_copy(update={"seed": seed}), [tmp_path / "index"]
        )
        assert trained.config.in_channels == small_corpus.config.latent_channels
    assert encoded == [12, 4, 4]  # the corpus once, held-out images each time
    log = pd.read_csv(tmp_path / "logs" / "generator.csv")
    assert log["held_out_loss"].notna().tolist() == [False, True]
    assert np.isfinite(log["loss"]).all()


def test_soft_labels_are_the_saved_judges_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = judge.build()
    monkeypatch.setattr(judge, "WEIGHTS", tmp_path / "model.safetensors")
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, judge.WEIGHTS)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    soft = image_tower.soft_labels(images)
    with torch.no_grad():
        logits = network.eval()(training.to_unit(images))[:, : len(CLASS_NAMES)]
    torch.testing.assert_close(soft, logits.softmax(1), rtol=1e-4, atol=1e-5)
    classes = backbone.predict(network, images, judge.HEADS)["class"]
    assert classes == [CLASS_NAMES[i] for i in soft.argmax(1)]

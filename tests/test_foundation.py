"""The embedded data and models: what they were made from, what never went in, and that they open as
on the hub.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor

from foundation.captions import describe, phrasings
from foundation.catalogue import rendered
from foundation.corpus import GROUNDS, HELD_OUT, draw_attributes, measure, original_look, render
from foundation.settings import Settings
from foundation.source import CLASS_NAMES

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
FASHION = ROOT / "data" / "fashion" / "data"
COUNTS = {"train": 100, "validation": 50, "test": 500}


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

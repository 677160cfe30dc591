import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits

from tests.support import tiny_models
from tests.support.learning import (
    ADAPT,
    INVERT,
    learn_and_write_adapter,
    learn_and_write_style,
    unet_output,
)
from tests.support.models import float32
from truelike.adaptation import loop
from truelike.adaptation.inversion import initial_embedding, learn_style, style_of, style_tokens
from truelike.generator.adapter import read_adapter, write_no_adapter
from truelike.generator.generator import Generator
from truelike.generator.guidance import guidance_vectors, guide
from truelike.generator.settings import VisualGuidance
from truelike.generator.style import read_style, write_style
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError

# Conditioning


def test_guidance_replaces_the_last_state_only() -> None:
    states, vectors = torch.zeros(2, 5, 3), torch.arange(6.0).view(2, 3)
    guided = guide({"encoder_hidden_states": states}, vectors)["encoder_hidden_states"]
    assert torch.equal(guided[:, -1], vectors)
    assert not guided[:, :-1].any()
    assert not states.any()


@pytest.mark.parametrize(
    ("kind", "centroids", "expected"),
    [
        ("image", 1, [0.0, 1.0, 10.0, 11.0, 5.0]),
        ("class_mean", 1, [5.5, 5.5, 5.5, 5.5, 5.0]),
        ("class_kmeans", 2, [0.5, 0.5, 10.5, 10.5, 5.0]),
        ("class_kmeans", 9, [0.0, 1.0, 10.0, 11.0, 5.0]),
    ],
)
def test_guidance_vectors_by_hand(kind: str, centroids: int, expected: list[float]) -> None:
    features = np.array([[0.0], [1.0], [10.0], [11.0], [5.0]], np.float32)
    settings = VisualGuidance(kind=kind, centroids=centroids)
    opened = Generator(tiny_models.make_pipeline(width=2))
    vectors = guidance_vectors(
        opened, np.repeat(features, 2, 1), np.array([0, 0, 0, 0, 1]), settings
    )
    assert vectors is not None
    np.testing.assert_allclose(vectors[:, 0], expected, atol=1e-6)


def test_centroids_of_many_images_do_not_depend_on_the_threads() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 32)).astype(np.float32)
    opened, labels = Generator(tiny_models.make_pipeline()), np.zeros(3000, int)
    settings = VisualGuidance(kind="class_kmeans", centroids=4)
    found = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            found.append(guidance_vectors(opened, features, labels, settings))
    np.testing.assert_array_equal(*found)


def test_guidance_off_needs_no_matching_width_and_on_says_what_fits() -> None:
    features, labels = np.zeros((2, 512), np.float32), np.zeros(2, int)
    opened = Generator(tiny_models.make_pipeline())
    assert (
        guidance_vectors(opened, features, labels, VisualGuidance(kind="off", centroids=1)) is None
    )
    with pytest.raises(
        TruelikeError,
        match=r"width 512 and the generator's text states have width 32.*clip-vit-large",
    ):
        guidance_vectors(opened, features, labels, VisualGuidance(kind="image", centroids=1))


# Style inversion


def test_only_the_new_rows_of_the_embedding_change(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    fresh = Generator.open(float32(generator))
    before = fresh.pipeline.text_encoder.get_input_embeddings().weight.clone()
    unet = {name: value.clone() for name, value in fresh.denoiser.state_dict().items()}
    trained = learn_and_write_style(generator, real, tmp_path / "style")
    assert torch.equal(
        trained.pipeline.text_encoder.get_input_embeddings().weight[: len(before)], before
    )
    assert all(
        torch.equal(value, unet[name]) for name, value in trained.denoiser.state_dict().items()
    )
    learned = load_file(tmp_path / "style/learned_embeds.safetensors")
    initial = initial_embedding(fresh, "photo")
    assert sorted(learned) == ["<style>", "<style>_1"]
    assert all(not torch.equal(vector[0], initial) for vector in learned.values())
    opened = Generator.open(float32(generator))
    style = opened.add_style(tmp_path / "style")
    weight = opened.pipeline.text_encoder.get_input_embeddings().weight
    assert style.text("boot") == style.text("bag") == "<style> <style>_1"
    assert style.fingerprint
    assert torch.equal(weight[: len(before)], before)
    assert torch.equal(weight[len(before) :], torch.cat([learned["<style>"], learned["<style>_1"]]))
    stock = StableDiffusionPipeline.from_pretrained(generator)
    for token, vector in learned.items():
        stock.load_textual_inversion({token: vector})
    assert torch.equal(stock.text_encoder.get_input_embeddings().weight, weight)
    ids = opened.pipeline.tokenizer(f"boot {style.text('boot')}").input_ids
    assert ids[-3:-1] == [len(before), len(before) + 1]


def test_initializer_is_the_mean_of_its_tokens(generator: Path) -> None:
    opened = Generator.open(float32(generator))
    weight = opened.pipeline.text_encoder.get_input_embeddings().weight
    ids = opened.pipeline.tokenizer.convert_tokens_to_ids(["p", "h</w>", "x</w>"])
    torch.testing.assert_close(initial_embedding(opened, "ph x"), weight[ids].mean(0))
    with pytest.raises(TruelikeError, match=r"invert\.initializer: '' has no token"):
        initial_embedding(opened, "")


def test_style_inversion_lowers_its_loss(generator: Path, real: ImageSet, tmp_path: Path) -> None:
    losses = {}
    for lr in (
        1e-12,
        0.05,
    ):  # the same noise and timesteps at every step, so that only the learned rows differ
        settings = INVERT.model_copy(
            update={"steps": 40, "batch_size": 10, "lr": lr, "weight_decay": 0.0}
        )
        folder = tmp_path / str(lr)
        folder.mkdir()
        learn_style(Generator.open(float32(generator)), real, settings, "float32", folder)
        rows = (folder / "log.csv").read_text().splitlines()[1:]
        losses[lr] = np.array([float(row.split(",")[1]) for row in rows])
    assert losses[0.05][0] == losses[1e-12][0]
    assert losses[0.05][20:].mean() < losses[1e-12][20:].mean()


def test_a_token_that_is_a_word_already_is_refused(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    settings = INVERT.model_copy(update={"token": "a</w>"})
    with pytest.raises(TruelikeError, match=r"invert\.token: 'a</w>' is already a token"):
        learn_style(Generator.open(float32(generator)), real, settings, "float32", tmp_path)


def test_no_style_is_a_file_that_says_so(tmp_path: Path, generator: Path) -> None:
    off = style_of(INVERT.model_copy(update={"enabled": False}), ["boot"])
    assert write_style(tmp_path, off, None) == [tmp_path / "style.json"]
    assert not Generator.open(float32(generator)).add_style(tmp_path).text("boot")
    assert read_style(None).fingerprint == ""
    assert style_tokens("<s>", 3) == ("<s>", "<s>_1", "<s>_2")


# Adaptation


def test_stock_diffusers_reloads_the_adapter_to_the_same_output(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    trained = learn_and_write_adapter(generator, real, tmp_path / "adapter")
    stock = StableDiffusionPipeline.from_pretrained(generator)
    base = unet_output(stock)
    stock.load_lora_weights(tmp_path / "adapter")
    assert torch.equal(unet_output(stock), unet_output(trained.pipeline))
    assert not torch.allclose(unet_output(stock), base)
    layers = load_file(tmp_path / "adapter/pytorch_lora_weights.safetensors")
    adapted = {part for name in layers for part in name.split(".") if part.startswith("to_")}
    assert adapted == {"to_q", "to_k", "to_v", "to_out"}


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_adapter_is_fused_with_its_scale(
    generator: Path, real: ImageSet, tmp_path: Path, scale: float
) -> None:
    learn_and_write_adapter(generator, real, tmp_path / "adapter")
    fused = Generator.open(float32(generator))
    assert fused.add_adapter(tmp_path / "adapter", scale).fingerprint
    stock = StableDiffusionPipeline.from_pretrained(generator)
    stock.load_lora_weights(tmp_path / "adapter", adapter_name="a")
    stock.set_adapters("a", scale)
    torch.testing.assert_close(
        unet_output(fused.pipeline), unet_output(stock), atol=1e-5, rtol=1e-4
    )
    assert not any("lora" in name for name, _ in fused.denoiser.named_parameters())


@pytest.mark.parametrize("change", ["rename", "shape"])
def test_an_adapter_that_does_not_match_fails_loudly(
    generator: Path, real: ImageSet, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "adapter"
    learn_and_write_adapter(generator, real, folder)
    layers = load_file(folder / "pytorch_lora_weights.safetensors")
    name = next(key for key in layers if "to_k" in key)
    value = layers.pop(name)
    layers[name.replace("to_k", "to_x") if change == "rename" else name] = (
        value if change == "rename" else value[:, 1:]
    )
    save_file(
        {key: layer.contiguous() for key, layer in layers.items()},
        folder / "pytorch_lora_weights.safetensors",
    )
    with pytest.raises(
        TruelikeError, match="fits no layer of the generator's unet; run the stage adapt again"
    ):
        Generator.open(float32(generator)).add_adapter(folder, 1.0)


def test_the_log_adds_up_and_every_switch_changes_what_is_learned(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    seen = set()
    heavy = ADAPT.dm.model_copy(update={"weight": 1.0})
    for number, change in enumerate(
        [
            {},
            {"groups": "class"},
            {"reduction": "mean"},
            {"timesteps": "shared"},
            {"kernel": "rbf"},
            {"weight": 0.0},
        ]
    ):
        settings = ADAPT.model_copy(update={"dm": heavy.model_copy(update=change)})
        folder = tmp_path / str(number)
        learn_and_write_adapter(generator, real, folder, settings)
        seen.add(read_adapter(folder).fingerprint)
        rows = (folder / "log.csv").read_text().splitlines()
        assert rows[0] == "step,loss,diff,dm"
        for row in rows[1:]:
            _, total, diff, matching = map(float, row.split(","))
            assert total == pytest.approx(diff + settings.dm.weight * matching, rel=1e-4)
    assert len(seen) == 6


def test_no_adapter_is_a_file_that_says_so(tmp_path: Path) -> None:
    assert write_no_adapter(tmp_path) == [tmp_path / "adapter.json"]
    assert json.loads((tmp_path / "adapter.json").read_text())["enabled"] is False


@pytest.mark.parametrize(
    ("learn", "settings"),
    [
        (learn_and_write_style, INVERT),
        (learn_and_write_style, INVERT.model_copy(update={"scope": "class", "choose": "best"})),
        (learn_and_write_adapter, ADAPT),
        (learn_and_write_adapter, ADAPT.model_copy(update={"ema_decay": 0.9})),
    ],
)
def test_an_interrupted_and_resumed_run_ends_with_the_same_bytes(
    generator: Path,
    real: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    learn,
    settings,
) -> None:
    learn(generator, real, tmp_path / "whole", settings)
    steps = []

    def interrupt(seed: int, step: int) -> torch.Generator:
        steps.append(step)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return torch.Generator().manual_seed((seed << 32) + step)

    monkeypatch.setattr(loop, "step_rng", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn(generator, real, tmp_path / "resumed", settings)
    learn(generator, real, tmp_path / "resumed", settings)
    assert steps == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    files = sorted(
        path.name
        for path in (tmp_path / "whole").iterdir()
        if path.suffix not in (".pt", ".sha256")
    )
    assert len(files) == 3
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "resumed" / name
        ).read_bytes()

"""What adaptation and style inversion learn from what: losses by their formulas, scopes, guidance,
and what stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file

from tests.support.learning import (
    ADAPT,
    INVERT,
    learn_and_write_adapter,
    learn_and_write_style,
    training_images,
    unet_output,
)
from tests.support.models import float32
from tests.support.tiny_models import SCHEDULER
from truelike.adaptation import inversion
from truelike.adaptation.heldout import split_classes
from truelike.adaptation.inversion import class_styles, learn_style
from truelike.adaptation.lora import learn_adapter
from truelike.generator import generator as generator_module
from truelike.generator.adapter import read_adapter
from truelike.generator.generator import Generator
from truelike.generator.prompts import training_prompts
from truelike.generator.settings import Prompts
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.synthesis.render import Renderer


def states_of(opened: Generator, *prompts: str) -> torch.Tensor:
    """The stock pipeline's text states."""
    with torch.no_grad():
        return torch.cat(
            [opened.pipeline.encode_prompt(prompt, "cpu", 1, False)[0] for prompt in prompts]
        )


def learned_style(
    generator: Path, real: ImageSet, folder: Path, **change: Any
) -> dict[str, torch.Tensor]:
    learn_and_write_style(generator, real, folder, INVERT.model_copy(update=change))
    return load_file(folder / "learned_embeds.safetensors")


def test_a_style_is_learned_on_the_device(
    generator: Path, real: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text encoders are in the CPU's memory when its first value is read from them."""
    opened = Generator.open(float32(generator), parts=[])
    opened.device = torch.device("meta")
    monkeypatch.setattr(inversion, "_latents", lambda *inputs: torch.zeros(10, 4, 8, 8))
    learned: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(inversion, "optimize", lambda rows, *inputs: learned.update(rows))
    learn_style(opened, real, INVERT, "float32", tmp_path)
    (rows,) = learned.values()
    assert rows.device.type == "meta"
    assert rows.is_leaf


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "log.csv")


@contextmanager
def unet_inputs(opened: Generator) -> Iterator[list[dict[str, torch.Tensor]]]:
    """What the UNet was given, call by call."""
    calls: list[dict[str, torch.Tensor]] = []

    def record(module: Any, arguments: tuple, named: dict[str, Any]) -> None:
        calls.append(
            {"latents": arguments[0].detach(), "states": named["encoder_hidden_states"].detach()}
        )

    hook = opened.denoiser.register_forward_pre_hook(record, with_kwargs=True)
    yield calls
    hook.remove()


# The losses


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_the_first_losses_of_adaptation_are_the_formula_s(
    generator: Path, real: ImageSet, tmp_path: Path, prediction: str
) -> None:
    """Before the first update the LoRA adds nothing, so the losses are those of the plain UNet."""
    opened = Generator.open(float32(generator))
    config = {
        key: SCHEDULER[key]
        for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    }
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    opened.pipeline.scheduler = (
        flow if prediction == "flow" else DDPMScheduler(**config, prediction_type=prediction)
    )
    latents = opened.encode_images(real)
    settings = ADAPT.model_copy(update={"steps": 1, "caption_dropout": 0.0})
    draw = torch.Generator().manual_seed(0)
    clean = latents[torch.randperm(len(real), generator=draw)[:4]]
    noise = torch.randn(clean.shape, generator=draw)
    t = torch.randint(1000, (4,), generator=draw)
    if prediction == "flow":
        u = 1 - t / 1000
        sigma = (3 * u / (1 + 2 * u)).view(-1, 1, 1, 1)
        noisy, told, wanted = (
            (1 - sigma) * clean + sigma * noise,
            1000 * sigma.flatten(),
            noise - clean,
        )
        weights = torch.ones(4)
    else:
        abar = opened.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        noisy, told = abar.sqrt() * clean + (1 - abar).sqrt() * noise, t
        snr = (abar / (1 - abar)).flatten()
        if prediction == "epsilon":
            wanted, weights = noise, snr.clamp(max=5) / snr
        else:
            wanted, weights = (
                abar.sqrt() * noise - (1 - abar).sqrt() * clean,
                snr.clamp(max=5) / (snr + 1),
            )
    with torch.no_grad():
        predicted = opened.denoiser(
            noisy, told, encoder_hidden_states=states_of(opened, *["a boot"] * 4)
        ).sample
    weights = weights.view(-1, 1, 1, 1)
    diff = (weights * (predicted - wanted) ** 2).mean().item()
    matching = ((weights * predicted).sum(0) - (weights * wanted).sum(0)).square().mean().item()
    images = training_images(opened, real, ["a boot"] * len(real))
    learn_adapter(opened, images, settings, "float32", tmp_path)
    row = log_of(tmp_path).iloc[0]
    assert row["diff"] == pytest.approx(diff, rel=1e-4)
    assert row["dm"] == pytest.approx(matching, rel=1e-4)
    assert row["loss"] == pytest.approx(diff + 0.003 * matching, rel=1e-4)


def test_latents_on_disk_are_those_of_the_vae_in_its_order_in_memory(
    generator: Path, real: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Generator.open(float32(generator))
    with torch.no_grad():
        expected = torch.cat(
            [opened.to_latents(torch.from_numpy(batch)) for batch in real.batches(4)]
        )
    monkeypatch.setattr(generator_module, "ENCODED_PIXELS", 4 * 16 * 16)
    found = opened.encode_images(real)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


# Adaptation


def test_only_the_lora_learns(generator: Path, real: ImageSet, tmp_path: Path) -> None:
    fresh = Generator.open(float32(generator))
    trained = learn_and_write_adapter(generator, real, tmp_path / "adapter")
    learning = {
        name for name, value in trained.denoiser.named_parameters() if value.grad is not None
    }
    assert learning == {name for name, _ in trained.denoiser.named_parameters() if "lora_" in name}
    for part in ("vae", "text_encoder"):
        model = getattr(trained.pipeline, part)
        assert all(value.grad is None for value in model.parameters())
        before = getattr(fresh.pipeline, part).state_dict()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trained.denoiser.unload_lora()
    assert torch.equal(unet_output(trained.pipeline), unet_output(fresh.pipeline))


def test_chosen_projections_learn_and_reload_in_stock_diffusers(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    settings = ADAPT.model_copy(update={"targets": ("v", "q")})
    trained = learn_and_write_adapter(generator, real, tmp_path / "adapter", settings)
    layers = load_file(tmp_path / "adapter/pytorch_lora_weights.safetensors")
    assert {part for name in layers for part in name.split(".") if part.startswith("to_")} == {
        "to_q",
        "to_v",
    }
    stock = StableDiffusionPipeline.from_pretrained(generator)
    stock.load_lora_weights(tmp_path / "adapter")
    assert torch.equal(unet_output(stock), unet_output(trained.pipeline))


def test_the_adapter_is_the_average_of_the_weights(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    layers = []
    for steps in (1, 2):
        settings = ADAPT.model_copy(update={"steps": steps})
        learn_and_write_adapter(generator, real, tmp_path / str(steps), settings)
        layers.append(load_file(tmp_path / str(steps) / "pytorch_lora_weights.safetensors"))
    settings = ADAPT.model_copy(update={"steps": 2, "ema_decay": 0.5})
    trained = learn_and_write_adapter(generator, real, tmp_path / "average", settings)
    average = load_file(tmp_path / "average/pytorch_lora_weights.safetensors")
    for name, value in average.items():  # after two steps the decay is 2 / 11, below 0.5
        torch.testing.assert_close(value, 2 / 11 * layers[0][name] + 9 / 11 * layers[1][name])
    stock = StableDiffusionPipeline.from_pretrained(generator)
    stock.load_lora_weights(tmp_path / "average")
    assert torch.equal(unet_output(stock), unet_output(trained.pipeline))
    assert (
        read_adapter(tmp_path / "average").fingerprint != read_adapter(tmp_path / "2").fingerprint
    )


# Style inversion


def test_each_class_has_a_style_of_its_own(generator: Path, real: ImageSet, tmp_path: Path) -> None:
    settings = INVERT.model_copy(update={"scope": "class", "tokens_per_style": 2})
    learn_and_write_style(generator, real, tmp_path / "style", settings)
    opened = Generator.open(float32(generator))
    style = opened.add_style(tmp_path / "style")
    assert style.text("boot") == "<style>-0 <style>-0_1"
    assert style.text("bag") == "<style>-1 <style>-1_1"
    prompts = Prompts(
        base="a {class}",
        definitions={},
        caption="",
        style=" {style}",
        quality="",
        negative="",
        context="own",
        seed=0,
    )
    names = ["bag", "boot"]
    texts = training_prompts(
        opened.reader, prompts, names, names, ["", ""], [style.text(name) for name in names]
    )
    assert texts == ["a bag <style>-1 <style>-1_1", "a boot <style>-0 <style>-0_1"]
    first = opened.pipeline.tokenizer.convert_tokens_to_ids("<style>-0")
    ids = [opened.pipeline.tokenizer(text).input_ids for text in texts]
    assert [[token - first for token in row if token >= first] for row in ids] == [[2, 3], [0, 1]]


def test_a_style_does_not_depend_on_the_other_classes(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    """Seven steps over two classes: four for boots, three for bags, each as many as without the
    last turn.
    """
    change = {"scope": "class", "tokens_per_style": 1}
    learned = {
        steps: learned_style(generator, real, tmp_path / str(steps), steps=steps, **change)
        for steps in (1, 6, 7)
    }
    opened = Generator.open(float32(generator))
    weight = opened.pipeline.text_encoder.get_input_embeddings().weight
    ids = opened.pipeline.tokenizer("photo", add_special_tokens=False).input_ids
    torch.testing.assert_close(learned[1]["<style>-1"][0], weight[ids].mean(0))
    assert not torch.allclose(learned[1]["<style>-0"][0], weight[ids].mean(0))


def test_style_words_are_shared_or_numbered_by_class() -> None:
    names = ["boot", "bag"]
    assert class_styles(INVERT, names) == dict.fromkeys(names, ("<style>", "<style>_1"))
    settings = INVERT.model_copy(update={"scope": "class", "tokens_per_style": 1})
    assert class_styles(settings, names) == {"boot": ("<style>-0",), "bag": ("<style>-1",)}


def test_images_are_held_out_of_learning_only_to_choose_the_best(real: ImageSet) -> None:
    members, held = split_classes(real, "invert", "last", 0)
    assert [len(positions) for positions in held.values()] == [0, 0]
    assert {label: positions.tolist() for label, positions in members.items()} == {
        0: [0, 2, 4, 6, 8],
        1: [1, 3, 5, 7, 9],
    }
    kept, held = split_classes(real, "invert", "best", 0)
    for label, positions in members.items():
        assert len(held[label]) == 1
        assert sorted([*kept[label].tolist(), *held[label].tolist()]) == positions.tolist()
    again = split_classes(real, "invert", "best", 0)[1]
    assert all(torch.equal(again[label], held[label]) for label in held)


def test_a_class_of_one_image_cannot_be_held_out(real: ImageSet) -> None:
    class One:
        labels, class_names = np.array([0, 0, 1]), ("boot", "bag")

    with pytest.raises(
        TruelikeError, match=r"adapt\.choose is 'best', but the class 'bag' has 1 training image"
    ):
        split_classes(One(), "adapt", "best", 0)  # type: ignore[arg-type]


def test_the_held_out_loss_uses_the_held_out_images_and_the_same_noise(
    generator: Path, real: ImageSet, tmp_path: Path
) -> None:
    opened = Generator.open(float32(generator))
    still = INVERT.model_copy(update={"choose": "best", "lr": 1e-12, "weight_decay": 0.0})
    with unet_inputs(opened) as calls:
        learn_style(opened, real, still, "float32", tmp_path)
    heldout = log_of(tmp_path)["heldout"]
    assert heldout.notna().tolist() == [False, False, True, False, False, True, True]
    assert heldout.dropna().nunique() == 1
    sizes = [len(call["latents"]) for call in calls]
    assert sizes == [3, 3, 3, *[3, 3, 2] * 2, 3, 3, 3, *[3, 3, 2] * 2, 3, *[3, 3, 2] * 2]


# Visual guidance


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_training_guides_the_last_state_of_captions_and_not_the_empty_prompt(
    generator: Path, real: ImageSet, tmp_path: Path, dropout: float
) -> None:
    opened = Generator.open(float32(generator))
    vectors = np.random.default_rng(0).normal(size=(len(real), 32)).astype(np.float32)
    prompts = [f"a {name}" for name in real.index["class_name"]]
    plain, empty = states_of(opened, *prompts), states_of(opened, "")
    settings = ADAPT.model_copy(update={"steps": 1, "caption_dropout": dropout})
    with unet_inputs(opened) as calls:
        images = training_images(opened, real, prompts, vectors)
        learn_adapter(opened, images, settings, "float32", tmp_path)
    chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[
        : settings.batch_size
    ]
    states = calls[0]["states"]
    if dropout:
        torch.testing.assert_close(states, empty.expand_as(states))
    else:
        torch.testing.assert_close(states[:, :-1], plain[chosen, :-1])
        assert torch.equal(states[:, -1], torch.from_numpy(vectors)[chosen])


def test_sampling_guides_the_last_state_of_the_conditional_branch_only(
    generator: Path, real: ImageSet
) -> None:
    opened = Generator.open(float32(generator))
    vectors = np.random.default_rng(0).normal(size=(len(real), 32)).astype(np.float32)
    rows = pd.DataFrame(
        {
            "source_key": [real.keys[3], real.keys[1]],
            "prompt": ["a bag", "a red bag"],
            "negative_prompt": "blurry",
            "seed": [5, 6],
            "sampler": "ddim",
            "steps": 2,
            "guidance_scale": 2.0,
            "guidance_low": 0.0,
            "guidance_high": 1.0,
            "strength": 1.0,
        }
    )
    with unet_inputs(opened) as calls:
        Renderer(opened, real, vectors).render(rows)
    plain, negative = states_of(opened, "a bag", "a red bag"), states_of(opened, "blurry")
    assert len(calls) == 2
    for call in calls:
        unconditional, conditional = call["states"].chunk(2)
        torch.testing.assert_close(unconditional, negative.expand_as(unconditional))
        torch.testing.assert_close(conditional[:, :-1], plain[:, :-1])
        assert torch.equal(conditional[:, -1], torch.from_numpy(vectors[[3, 1]]))

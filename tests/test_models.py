import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPModel

from tests.support import tiny_models
from tests.support.models import float32
from truelike.captioning.captioner import Captioner, open_captioner
from truelike.captioning.captions import caption_images
from truelike.captioning.rewriter import open_rewriter
from truelike.features.encoder import open_encoder
from truelike.generator.generator import Generator, identify
from truelike.imageset.reading import ImageSet
from truelike.runtime import hub as source
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import resolve, variant


def test_a_directory_is_its_own_model(generator: Path) -> None:
    assert resolve(generator, "model_index.json") == generator


def test_a_missing_model_is_named() -> None:
    with pytest.raises(TruelikeError, match=r"nowhere: no such model.*hub: OWNER/NAME"):
        resolve("nowhere")


def test_a_directory_of_another_kind_says_what_it_holds(encoder: Path) -> None:
    with pytest.raises(TruelikeError, match=r"no model_index\.json in .*found config\.json"):
        resolve(encoder, "model_index.json")


def test_a_pointer_names_its_variant(tmp_path: Path) -> None:
    pointer = tmp_path / "sd.yaml"
    pointer.write_text("hub: owner/name\nrevision: abc\nvariant: fp16\n")
    assert variant(pointer) == {"variant": "fp16"}


def test_an_unpinned_pointer_warns_and_a_failed_download_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(name: str, **options: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(source, "snapshot_download", download)
    pointer = tmp_path / "sd.yaml"
    pointer.write_text("hub: owner/name\n")
    with pytest.raises(
        TruelikeError, match=r"sd\.yaml: cannot download owner/name at main: no network"
    ):
        resolve(pointer)
    assert "pin it to a commit" in capsys.readouterr().err


def test_a_hub_that_does_not_answer_is_named_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source.constants, "ENDPOINT", "http://192.0.2.1")  # an address of no one
    monkeypatch.setattr(source.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(source, "TIMEOUT", 0.5)
    source.unreachable.cache_clear()
    pointer = tmp_path / "sd.yaml"
    pointer.write_text("hub: owner/name\nrevision: " + "ab" * 20)
    start = time.monotonic()
    with pytest.raises(TruelikeError, match=r"cannot download .*192\.0\.2\.1 cannot be reached"):
        resolve(pointer)
    assert time.monotonic() - start < 5
    source.unreachable.cache_clear()


def test_a_pointer_with_unknown_entries_is_refused(tmp_path: Path) -> None:
    pointer = tmp_path / "sd.yaml"
    pointer.write_text("hub: owner/name\nrevison: abc\n")
    with pytest.raises(TruelikeError, match="revison"):
        resolve(pointer)


def test_features_are_projected_unnormalised_and_do_not_depend_on_the_batch(
    encoder: Path, real: ImageSet
) -> None:
    pixels = real.load()
    features = open_encoder(float32(encoder)).embed(pixels, 4)
    assert features.dtype == np.float32
    model, processor = (
        CLIPModel.from_pretrained(encoder),
        CLIPImageProcessor.from_pretrained(encoder),
    )
    inputs = processor(images=[Image.fromarray(image) for image in pixels], return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(inputs).pooler_output).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert not np.allclose(np.linalg.norm(features, axis=1), 1)


def test_images_of_any_size_are_resized_as_the_checkpoint_says(encoder: Path) -> None:
    opened = open_encoder(float32(encoder))
    image = np.full((1, 16, 16, 3), 200, np.uint8)
    np.testing.assert_allclose(
        opened.embed(image, 1),
        opened.embed(image.repeat(3, axis=1).repeat(3, axis=2), 1),
        atol=1e-4,
    )
    assert opened.embed(image[:0], 1).shape == (0, tiny_models.WIDTH)


def test_an_encoder_of_another_kind_is_refused(captioner: Path) -> None:
    with pytest.raises(TruelikeError, match=r"models\.encoder: .* type 'blip', expected 'clip'"):
        open_encoder(float32(captioner))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_blip_captions_every_image_deterministically(
    captioner: Path, real: ImageSet, project: Path
) -> None:
    table = caption_images(real, float32(captioner), max_tokens=5, batch_size=4)
    assert table["key"].tolist() == real.keys
    assert all(
        set(text.split()) <= {"red", "shoe", "on", "white", "a"} for text in table["caption"]
    )
    assert all(table["truncated"])  # this model never ends a sentence
    shutil.rmtree(project / ".work")
    assert caption_images(real, float32(captioner), max_tokens=5, batch_size=4).equals(table)


def test_vit_gpt2_captions(tmp_path: Path, real: ImageSet) -> None:
    opened = open_captioner(float32(tiny_models.save_vit_gpt2(tmp_path)))
    texts, cut = opened.caption(real.load([0, 1]), max_tokens=5)
    assert len(texts) == len(cut) == 2
    assert all(texts)


def test_blip2_captions_and_knows_what_it_cut(tmp_path: Path, real: ImageSet) -> None:
    opened = open_captioner(float32(tiny_models.save_blip2(tmp_path)))
    pixels = real.load([0, 1])
    inputs = opened.image_processor(
        [Image.fromarray(image) for image in pixels], return_tensors="pt"
    )
    tokens = opened.model.generate(inputs["pixel_values"], max_new_tokens=6, do_sample=False)
    tokens = tokens[:, 5:]  # four query tokens, and the one that begins a text
    assert tokens.shape == (2, 6)
    texts, cut = opened.caption(pixels, max_tokens=6)
    assert texts == opened.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert cut == [True, True]  # although the token that begins a caption is the one that ends it
    opened.model.generation_config.eos_token_id = int(tokens[0, 0])
    assert opened.caption(pixels[:1], max_tokens=6)[1] == [False]


def test_a_captioner_that_chats_says_only_its_answer(tmp_path: Path, real: ImageSet) -> None:
    opened = open_captioner(float32(tiny_models.save_llava(tmp_path)))
    texts, cut = opened.caption(real.load([0, 1, 2]), max_tokens=4)
    assert len(texts) == len(cut) == 3
    assert all(
        len(text.split()) == 4 and set(text.split()) <= set(tiny_models.WORDS) for text in texts
    )


@pytest.mark.parametrize(
    "save",
    [
        tiny_models.save_blip,
        tiny_models.save_blip2,
        tiny_models.save_llava,
        tiny_models.save_vit_gpt2,
    ],
)
def test_an_instruction_reaches_the_captioner_whatever_the_others_are(
    save, tmp_path: Path, real: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_captioner(float32(save(tmp_path)))
    generate, given = opened.model.generate, []

    def spy(**inputs):
        ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
        given.append(opened.tokenizer.batch_decode(ids, skip_special_tokens=True))
        return generate(**inputs)

    monkeypatch.setattr(opened.model, "generate", spy)
    pixels, asked = real.load([0, 1, 2]), ["a red shoe", "on", "a white shoe"]
    texts, cut = opened.caption(pixels, 4, asked)
    assert len(given) > 1  # what is as long together, without padding
    told = [text for batch in given for text in batch]
    assert all(any(instruction in text for text in told) for instruction in asked)
    for row, instruction in enumerate(asked):
        alone = opened.caption(pixels[row : row + 1], 4, [instruction])
        assert alone == ([texts[row]], [cut[row]])
        assert len(opened.tokenizer(texts[row], add_special_tokens=False).input_ids) <= 4


@pytest.mark.usefixtures("project")
def test_the_class_is_put_into_the_instruction(
    captioner: Path, real: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Captioner, "caption", lambda self, pixels, _, asked: (asked, [False] * len(pixels))
    )
    table = caption_images(real, float32(captioner), 5, 4, "red {class} on")
    assert table["caption"].tolist() == [f"red {name} on" for name in real.index["class_name"]]


@pytest.mark.parametrize("save", [tiny_models.save_gpt2, tiny_models.save_t5])
def test_rewrites_depend_on_caption_and_seed_alone(save, tmp_path: Path) -> None:
    opened = open_rewriter(float32(save(tmp_path)))
    first = opened.rewrite("a red shoe", 5, 12, seed=1)
    opened.rewrite("a white shoe", 3, 12, seed=2)
    assert opened.rewrite("a red shoe", 5, 12, seed=1) == first
    assert opened.rewrite("a red shoe", 5, 12, seed=2) != first
    assert len(first) == 5
    assert len(set(first)) > 1
    assert all(
        len(text.split()) <= 12 and set(text.split()) <= set(tiny_models.WORDS) for text in first
    )


def test_a_language_model_that_chats_is_asked_in_its_own_template(tmp_path: Path) -> None:
    plain = open_rewriter(float32(tiny_models.save_gpt2(tmp_path / "plain")))
    template = "on {{ messages[0]['content'] }} white"
    chats = open_rewriter(float32(tiny_models.save_gpt2(tmp_path / "chats", template)))
    assert chats.rewrite("a red shoe", 3, 8, seed=0) == plain.rewrite(
        "on a red shoe white", 3, 8, seed=0
    )


def test_a_model_that_does_not_write_is_refused(captioner: Path) -> None:
    with pytest.raises(
        TruelikeError, match=r"models\.rewriter: .* type 'blip', which does not write text"
    ):
        open_rewriter(float32(captioner))


@pytest.mark.usefixtures("project")
def test_an_empty_caption_is_an_error(
    real: ImageSet, monkeypatch: pytest.MonkeyPatch, captioner: Path
) -> None:
    monkeypatch.setattr(
        Captioner, "caption", lambda self, pixels, *_: ([""] * len(pixels), [False] * len(pixels))
    )
    with pytest.raises(
        TruelikeError, match=r"models\.captioner: no caption for 10 of 10 images.*caption\.by"
    ):
        caption_images(real, float32(captioner), 5, 4)


def test_a_model_that_cannot_caption_is_refused(encoder: Path) -> None:
    with pytest.raises(TruelikeError, match=r"type 'clip', which does not caption images"):
        open_captioner(float32(encoder))


def test_a_pipeline_of_another_kind_is_refused(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(
        TruelikeError, match="holds a PixArtAlphaPipeline, expected one of StableDiff"
    ):
        Generator.open(float32(tmp_path))


def test_identity_changes_with_the_weights(tmp_path: Path) -> None:
    folder = tiny_models.save_generator(tmp_path / "g")
    before = identify(float32(folder))
    weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    weights["conv_in.bias"] += 1
    save_file(weights, folder / "unet/diffusion_pytorch_model.safetensors")
    assert identify(float32(folder)) != before


def test_latents_are_scaled_and_pixels_round(generator: Path, real: ImageSet) -> None:
    opened = Generator.open(float32(generator))
    pipeline = opened.pipeline
    pixels = torch.from_numpy(real.load())
    with torch.no_grad():
        latents = opened.to_latents(pixels)
        expected = pipeline.vae.encode(
            pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        ).latent_dist.mean
        torch.testing.assert_close(latents, expected * pipeline.vae.config.scaling_factor)
        decoded = opened.to_pixels(latents)
        stock = pipeline.image_processor.postprocess(
            pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample,
            output_type="pil",
        )
    assert decoded.dtype == torch.uint8
    np.testing.assert_array_equal(decoded.numpy(), np.stack([np.asarray(image) for image in stock]))


def test_a_style_of_another_width_is_refused(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "style.json").write_text(
        json.dumps({"enabled": True, "token": "<s>", "tokens": ["<s>"]})
    )
    save_file({"<s>": torch.zeros(1, 7)}, tmp_path / "learned_embeds.safetensors")
    with pytest.raises(
        TruelikeError, match=r"'<s>' has width 7, the generator's text encoder has 32"
    ):
        Generator.open(float32(generator)).add_style(tmp_path)


def test_a_style_without_its_embedding_is_refused(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "style.json").write_text(
        json.dumps({"enabled": True, "token": "<s>", "tokens": ["<s>", "<s>_1"]})
    )
    save_file({"<s>": torch.zeros(1, 32)}, tmp_path / "learned_embeds.safetensors")
    with pytest.raises(TruelikeError, match=r"holds \['<s>'\], expected \['<s>', '<s>_1'\]"):
        Generator.open(float32(generator)).add_style(tmp_path)

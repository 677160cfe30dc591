"""Measures the assembled models on held-out corpus images and prompts: ``metrics.json``.

What the generator draws is judged by a classifier that ``judge`` trained, whose own accuracy is
reported too. ``unseen`` measures the held-out combination, white and grey garments on black:
source images of the corpus's held-out part in their original look, and prompts for it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import timm
import torch
from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler
from PIL import Image
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor

from foundation import ROOT, backbone, captioner, codec, judge
from foundation.attributes import CLASS_NAMES, COLOURS, HELD_OUT
from foundation.backbone import predict
from foundation.captions import NOUNS
from foundation.image_tower import class_prompt
from foundation.judge import HEADS
from foundation.paths import MODELS
from foundation.settings import Evaluation, Settings
from foundation.training import load_corpus, to_unit

METRICS = ROOT / "metrics.json"
SAMPLES = ROOT / "samples.png"
BATCH = 100


def share(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of equal words."""
    return float(np.mean([a == b for a, b in zip(answers, expected, strict=True)]))


def share_by_class(answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """Share of equal words among those of each class."""
    answers, expected = np.array(answers), np.array(expected)
    return {name: float((answers[expected == name] == name).mean()) for name in CLASS_NAMES}


def white_or_grey(colours: Sequence[str]) -> float:
    """Share of white and grey, which garments in the user's look have."""
    return float(np.mean([colour in ("white", "grey") for colour in colours]))


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    seed: int,
    guidance_scale: float,
    steps: int,
) -> Tensor:
    """Draw an image for each prompt, each from its own seed: uint8, (N, 3, 32, 32)."""
    drawn = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        drawn.append(
            pipeline(
                part,
                height=32,
                width=32,
                guidance_scale=guidance_scale,
                num_inference_steps=steps,
                generator=[
                    torch.Generator().manual_seed(seed + start + i) for i in range(len(part))
                ],
                output_type="np",
            ).images
        )
    return torch.from_numpy(np.round(255 * np.concatenate(drawn)).astype(np.uint8)).permute(
        0, 3, 1, 2
    )


@torch.no_grad()
def caption(images: Tensor) -> list[str]:
    """Caption uint8 images as the pipeline does: greedy, at most 16 tokens."""
    directory = MODELS / "captioner"
    model = BlipForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(directory)
    captions = []
    for part in images.split(250):
        tokens = model.generate(to_unit(part), max_new_tokens=captioner.LENGTH, do_sample=False)
        captions += processor.batch_decode(tokens, skip_special_tokens=True)
    return [text.replace("t - shirt", "t-shirt") for text in captions]


def read_caption(text: str) -> dict[str, str]:
    """Find the class, the colour and the ground that a caption names, "" where it names none."""
    garment, _, rest = text.partition(" on a ")
    words = garment.split()
    ground = rest.partition(" background")[0]
    names = {noun: name for name, noun in NOUNS.items()}
    colour = next((word for word in words if word in COLOURS), "")
    return {"class": names.get(words[-1] if words else "", ""), "colour": colour, "ground": ground}


@torch.no_grad()
def zero_shot(images: Tensor) -> list[str]:
    """Recognise uint8 images by the encoder's closest class prompt."""
    directory = MODELS / "encoder"
    model = CLIPModel.from_pretrained(directory, dtype=torch.float32).eval()
    words = CLIPProcessor.from_pretrained(directory).tokenizer
    prompts = [class_prompt(name) for name in CLASS_NAMES]
    tokens = words(prompts, padding="max_length", truncation=True, return_tensors="pt")
    scores = [
        model(input_ids=tokens.input_ids, pixel_values=to_unit(p)).logits_per_image
        for p in images.split(250)
    ]
    return [CLASS_NAMES[i] for i in torch.cat(scores).argmax(1)]


def contact_sheet(rows: list[Tensor]) -> Image.Image:
    """Lay uint8 images out in rows, three times enlarged."""
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1).permute(1, 2, 0).numpy()
    return Image.fromarray(sheet).resize(
        (3 * sheet.shape[1], 3 * sheet.shape[0]), Image.Resampling.NEAREST
    )


def open_generator() -> StableDiffusionPipeline:
    """Open the generator with the sampler that `sample` uses."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "generator", dtype=torch.float32)
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure_prompts(
    pipeline: StableDiffusionPipeline, model: nn.Module, settings: Evaluation
) -> tuple[dict[str, dict[str, float]], list[Tensor]]:
    """Measure what the judge recognises in images of prompts by class, by colour, and of pairs of
    colour and ground that the corpus leaves out: measures by name, and the three sets of images.
    """
    classes = [CLASS_NAMES[i % len(CLASS_NAMES)] for i in range(settings.prompts)]
    colours = [list(COLOURS)[i % len(COLOURS)] for i in range(settings.prompts)]
    pairs = [HELD_OUT[i // len(CLASS_NAMES) % len(HELD_OUT)] for i in range(settings.prompts)]
    by_class = [class_prompt(name) for name in classes]
    by_colour = [f"a {colour} {name}" for colour, name in zip(colours, classes, strict=True)]
    unseen = [
        f"a {colour} {NOUNS[name]} on a {ground} background, plain"
        for (colour, ground), name in zip(pairs, classes, strict=True)
    ]
    scale, steps = settings.guidance_scale, settings.sampling_steps
    sets = [
        sample(pipeline, prompts, settings.seed, scale, steps)
        for prompts in (by_class, by_colour, unseen)
    ]
    class_answers, colour_answers, unseen_answers = [
        predict(model, images, HEADS) for images in sets
    ]
    measures = {
        "generator": {
            "class_of_class_prompts": share(class_answers["class"], classes),
            "colour_of_colour_prompts": share(colour_answers["colour"], colours),
            "class_of_colour_prompts": share(colour_answers["class"], classes),
        },
        "generator_by_class": share_by_class(class_answers["class"], classes),
        "unseen": {
            "generator_class": share(unseen_answers["class"], classes),
            "generator_white_or_grey": white_or_grey(unseen_answers["colour"]),
            "generator_black_ground": share(unseen_answers["ground"], ["black"] * len(pairs)),
        },
    }
    return measures, sets


def measure_original_look(images: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Measure captioner and encoder on held-out garments in the user's look."""
    captions = [read_caption(text) for text in caption(images)]
    return {
        "captioner_class": share([c["class"] for c in captions], classes),
        "captioner_white_or_grey": white_or_grey([c["colour"] for c in captions]),
        "captioner_black_ground": share([c["ground"] for c in captions], ["black"] * len(images)),
        "encoder_zero_shot": share(zero_shot(images), classes),
    }


def measure_corpus(
    model: nn.Module, images: Tensor, table: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Measure captioner, encoder, backbone and the judge itself on the corpus's held-out images."""
    captions = [read_caption(text) for text in caption(images)]
    base = timm.create_model(f"local-dir:{MODELS / 'backbone'}", pretrained=True).eval()
    base_answers = predict(base, images, backbone.HEADS)
    judged = predict(model, images, HEADS)
    return {
        "captioner": {
            name: share([c[name] for c in captions], table[name])
            for name in ("class", "colour", "ground")
        },
        "encoder": {"zero_shot": share(zero_shot(images), table["class"])},
        "backbone": {head: share(base_answers[head], table[head]) for head in backbone.HEADS},
        "judge": {head: share(judged[head], table[head]) for head in HEADS},
        "judge_by_class": share_by_class(judged["class"], table["class"]),
    }


def weight_hashes() -> dict[str, str]:
    """Hash every file of weights: sha256 by its path below the models."""
    return {
        path.relative_to(MODELS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(MODELS.rglob("*.safetensors"))
    }


def main() -> None:
    settings = Settings.load().evaluation
    images, rows = load_corpus("held-out")
    table = {name: rows[name].tolist() for name in HEADS}
    original, labels = codec.held_out_originals()
    model, pipeline = judge.load(), open_generator()
    metrics, sets = measure_prompts(pipeline, model, settings)
    metrics |= measure_corpus(model, images, table)
    metrics["codec"] = {
        **codec.measure(pipeline.vae, settings),
        "psnr_corpus": codec.psnr(codec.reconstruct(pipeline.vae, images), images),
    }
    metrics["unseen"] |= measure_original_look(original, [CLASS_NAMES[i] for i in labels])
    rounded = {
        part: {name: round(value, 4) for name, value in values.items()}
        for part, values in metrics.items()
    }
    METRICS.write_text(json.dumps({**rounded, "sha256": weight_hashes()}, indent=2) + "\n")
    contact_sheet([part[:20] for part in (images, *sets, original)]).save(SAMPLES)


if __name__ == "__main__":
    main()

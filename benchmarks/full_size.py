"""Every stage on a model of full size with random weights:
``python -m benchmarks.full_size [--model sdxl] [--resolution 512]``.

Generator, encoder (CLIP ViT-L/14), captioner (BLIP base) and classifier (ResNet-50) have their real
sizes; two classes and two steps a stage. On a CPU one training image of a class, in float32, and
the peaks beside what `benchmarks.cards` predicts of the same run: Stable Diffusion 1.5 takes
minutes, 5 GB of disk and 12 GB of memory. On a GPU two batches of images, with the type, batch
sizes and denoising steps of the model's recipe, which the table of `benchmarks.cards` is of.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
)

from benchmarks.architectures import architectures, build, clip_tokenizer
from benchmarks.cards import predictions, settings_of
from benchmarks.memory import STAGES, Peak, watch
from truelike.config import PARAMS_FILE, load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import encode_png
from truelike.runtime.devices import device
from truelike.synthesis.jobs import replica_job
from truelike.synthesis.plan import batches
from truelike.synthesis.run import open_renderer, plan_of

CLASSES, SPLITS = ("boot", "shoe"), ("train", "validation", "test")
ARMS = ("real", "mixed")
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
CLIP_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}

BERT = {
    "num_attention_heads": 12,
    "bos_token_id": 5,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sep_token_id": 3,
}


def on_gpu() -> bool:
    return device().type != "cpu"


def write_images(folder: Path, side: int, count: int) -> None:
    """An image folder with `count` random images of each class in each split."""
    draw = np.random.default_rng(0)
    for split in SPLITS:
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
                (folder / split / name / f"{number}.png").write_bytes(encode_png(image))


def save_models(folder: Path, name: str) -> dict[str, str]:
    """Write the generator `name` and the other models with random weights, float16; their paths by
    role.
    """
    torch.manual_seed(0)
    pipeline = build(architectures()[name], device())  # a GPU draws them in seconds
    pipeline.to(torch.float16).save_pretrained(folder / "generator")
    with device():
        encoder = CLIPModel(
            CLIPConfig(text_config=CLIP_L, vision_config=CLIP_VISION, projection_dim=768)
        )
        captioner = BlipForConditionalGeneration(BlipConfig(text_config=BERT))
    encoder.half().save_pretrained(folder / "encoder")
    captioner.half().save_pretrained(folder / "captioner")
    CLIPImageProcessor().save_pretrained(folder / "encoder")
    clip_tokenizer(49408, 77).save_pretrained(folder / "encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    words += [f"w{number}" for number in range(30524 - len(words))]
    tokenizer: Any = BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, bos_token="[DEC]"
    )
    BlipProcessor(BlipImageProcessor(), tokenizer).save_pretrained(folder / "captioner")
    (folder / "classifier.yaml").write_text("timm: resnet50\n")
    (folder / "rewriter.yaml").write_text("hub: none/none\n")  # no caption is rewritten
    (folder / "accelerator.yaml").write_text("# none\n")
    roles = {role: str(folder / role) for role in ("generator", "encoder", "captioner")}
    files = {role: f"{folder / role}.yaml" for role in ("classifier", "rewriter", "accelerator")}
    return roles | files


def settings(source: Path, models: dict[str, str], name: str, side: int | None) -> dict[str, Any]:
    """The recipe of the model with style inversion, and little to do in each stage."""
    params = settings_of(architectures()[name].recipe)
    images = params["synthesize"]["batch_size"] if on_gpu() else 1
    params["models"] |= models
    params["data"] |= {"source": str(source), "shots": images}
    params["data"]["resolution"] = side or params["data"]["resolution"]
    params["corrupt"]["images_per_class"] = 1
    params["ood"] = {}
    params["caption"]["max_tokens"] = 4
    params["invert"] |= {"enabled": True, "initializer": "photo", "steps": 2}
    params["synthesize"] |= {"replicas": [0]}
    params["select"] |= {"classifier_steps": 2, "min_class_probability": 0.0}
    arms = {arm: params["train"]["arms"][arm] for arm in ARMS}
    params["train"] |= {"steps": 2, "seeds": [0], "arms": arms}
    params["adapt"]["steps"] = 2
    params["audit"] |= {"neighbours": 1, "bootstrap": 100}
    params["evaluate"]["bootstrap"] = 100
    if not on_gpu():
        for part in ("invert", "adapt", "naive", "synthesize", "train"):
            params[part]["batch_size"] = 2
        params["models"]["dtype"] = params["train"]["dtype"] = "float32"
        params["naive"]["steps"] = 2
        params["synthesize"] |= {"steps": 4, "strength": 0.5}
    return params


def run(name: str, side: int | None) -> tuple[dict[str, Peak], float | None]:
    """Peaks of every stage from `prepare` to `report`, which raise where one fails, and how many
    images a second a GPU renders.
    """
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # whose memory ends with it
            models = pool.submit(save_models, project / "models", name).result()
        params = settings(project / "images", models, name, side)
        data = params["data"]
        write_images(project / "images", data["resolution"], data["shots"])
        YAML(typ="safe").dump(params, project / PARAMS_FILE)
        peaks = watch(project, STAGES, interval=1.0)
        with chdir(project):
            return peaks, rate() if on_gpu() else None


def rate() -> float:
    """Images a second that are rendered, when all is open and has run once."""
    job = replica_job(load_params())
    real, settings = ImageSet(job.real), job.settings
    rows = batches(plan_of(job, real, 0), settings.shard_size, settings.batch_size)[0]
    renderer = open_renderer(job, real)
    for _ in range(2):
        start = time.perf_counter()
        images = sum(len(batch) for batch in renderer.render_all(rows))
    return images / (time.perf_counter() - start)


def predicted(side: int | None) -> dict[str, float]:
    """MiB of tensors in the stages of SD 1.5 on the CPU that `benchmarks.cards` predicts."""
    params = settings(Path("images"), {}, "sd15", side)
    found = predictions(architectures()["sd15"], params, on_gpu=False, judged=len(CLASSES))
    return {stage: gib * 1024 for stage, gib in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["sd15", "sdxl"], default="sd15", help="sdxl: on a GPU")
    parser.add_argument("--resolution", type=int, help="pixels; the recipe's without it")
    asked = parser.parse_args()
    found, speed = run(asked.model, asked.resolution)
    tensors = {} if on_gpu() else predicted(asked.resolution)
    lines = [
        f"| {asked.model} | tensors {'measured' if on_gpu() else 'predicted'}, MiB "
        "| anonymous memory, MiB | resident, MiB | seconds |",
        "|---|---|---|---|---|",
    ]
    for stage, peak in found.items():
        own = peak.gpu if on_gpu() else tensors.get(stage.split()[0])
        cells = ["" if own is None else f"{own:.0f}"]
        cells += [f"{value:.0f}" for value in (peak.anonymous, peak.resident, peak.seconds)]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    if speed is not None:
        lines += ["", f"Rendered: {speed:.2f} images a second."]
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Every stage on a full-size Stable Diffusion 1.5 with random weights, on the CPU:
``python -m benchmarks.full_size [--resolution 512]``.

Generator, encoder (CLIP ViT-L/14), captioner (BLIP base) and classifier (ResNet-50) have their real
sizes; two classes, one training image each, two steps a stage. It takes minutes, 5 GB of disk and
12 GB of memory. The peaks are compared with what `benchmarks.cards` predicts of the same run.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
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
from truelike.config import PARAMS_FILE
from truelike.imageset.writing import encode_png

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


def write_images(folder: Path, side: int) -> None:
    """An image folder with one random image of each class in each split."""
    draw = np.random.default_rng(0)
    for split in SPLITS:
        for name in CLASSES:
            image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            (folder / split / name).mkdir(parents=True)
            (folder / split / name / "0.png").write_bytes(encode_png(image))


def save_models(folder: Path) -> dict[str, str]:
    """Write models of real size with random weights, float16; their paths by role."""
    torch.manual_seed(0)
    pipeline = build(architectures()["sd15"])
    pipeline.to(torch.float16).save_pretrained(folder / "generator")
    CLIPModel(
        CLIPConfig(text_config=CLIP_L, vision_config=CLIP_VISION, projection_dim=768)
    ).half().save_pretrained(folder / "encoder")
    CLIPImageProcessor().save_pretrained(folder / "encoder")
    clip_tokenizer(49408, 77).save_pretrained(folder / "encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    words += [f"w{number}" for number in range(30524 - len(words))]
    tokenizer: Any = BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, bos_token="[DEC]"
    )
    ends = {"bos_token_id": 5, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3}
    text = {"num_attention_heads": 12} | ends
    BlipForConditionalGeneration(BlipConfig(text_config=text)).half().save_pretrained(
        folder / "captioner"
    )
    BlipProcessor(BlipImageProcessor(), tokenizer).save_pretrained(folder / "captioner")
    (folder / "classifier.yaml").write_text("timm: resnet50\n")
    (folder / "rewriter.yaml").write_text("hub: none/none\n")  # no caption is rewritten
    (folder / "accelerator.yaml").write_text("# none\n")
    roles = {role: str(folder / role) for role in ("generator", "encoder", "captioner")}
    files = {role: f"{folder / role}.yaml" for role in ("classifier", "rewriter", "accelerator")}
    return roles | files


def settings(source: Path, models: dict[str, str], side: int) -> dict[str, Any]:
    """The recipe sd15 in float32 with style inversion, and little to do in each stage."""
    params = settings_of(["sd15"])
    params["models"] |= models | {"dtype": "float32"}
    params["data"] |= {"source": str(source), "resolution": side, "shots": 1}
    params["corrupt"]["images_per_class"] = 1
    params["ood"] = {}
    params["caption"]["max_tokens"] = 4
    params["invert"] |= {"enabled": True, "initializer": "photo", "steps": 2, "batch_size": 2}
    params["adapt"] |= {"steps": 2, "batch_size": 2}
    params["naive"] |= {"steps": 2, "batch_size": 2}
    params["synthesize"] |= {"steps": 4, "strength": 0.5, "replicas": [0], "batch_size": 2}
    params["select"] |= {"classifier_steps": 2, "min_class_probability": 0.0}
    arms = {name: params["train"]["arms"][name] for name in ARMS}
    training = {"dtype": "float32", "steps": 2, "batch_size": 2, "seeds": [0], "arms": arms}
    params["train"] |= training
    params["audit"] |= {"neighbours": 1, "bootstrap": 100}
    params["evaluate"]["bootstrap"] = 100
    return params


def run(side: int) -> dict[str, Peak]:
    """Peaks of every stage from `prepare` to `report`, which raise where one fails."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        write_images(project / "images", side)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # whose memory ends with it
            models = pool.submit(save_models, project / "models").result()
        params = settings(project / "images", models, side)
        YAML(typ="safe").dump(params, project / PARAMS_FILE)
        return watch(project, STAGES, interval=1.0)


def predicted(side: int) -> dict[str, float]:
    """MiB of tensors in the stages that `benchmarks.cards` predicts, on a CPU in float32."""
    params = settings(Path("images"), {}, side)
    found = predictions(architectures()["sd15"], params, on_gpu=False, judged=len(CLASSES))
    return {stage: gib * 1024 for stage, gib in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=512)
    side = parser.parse_args().resolution
    found, tensors = run(side), predicted(side)
    lines = [
        f"{side} pixels:",
        "",
        "| | tensors predicted, MiB | anonymous memory, MiB | resident, MiB | seconds |",
        "|---|---|---|---|---|",
    ]
    for stage, peak in found.items():
        own = tensors.get(stage.split()[0])
        cells = ["" if own is None else f"{own:.0f}"]
        cells += [f"{value:.0f}" for value in (peak.anonymous, peak.resident, peak.seconds)]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

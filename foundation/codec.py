"""Measures what the autoencoder costs, on held-out garments in the user's look: no diffusion model
can give better training images than its own codec.

``python -m foundation.codec FOLDER`` prints the measures of the autoencoder in a folder.
"""

import json
import sys

import numpy as np
import timm
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from foundation import backbone
from foundation.attributes import CLASS_NAMES
from foundation.corpus import original_look
from foundation.settings import Evaluation, Settings
from foundation.source import read_images, read_labels
from foundation.training import load_corpus, to_unit
from truelike.training.augmentation import random_resized_crop

SHOTS = 16  # training images of each class, as in the demo
STEPS = 450
BATCH = 64
RATE = 2e-3


def held_out_originals() -> tuple[Tensor, Tensor]:
    """Load the corpus's held-out sources in their original look: uint8 images and labels."""
    _, table = load_corpus("held-out")
    sources = sorted(set(table["source"]))
    images = torch.from_numpy(original_look(read_images("train")[sources])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(read_labels("train")[sources].astype(np.int64))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Pass uint8 images through an autoencoder: uint8."""
    parts = [vae.decode(vae.encode(to_unit(p)).latent_dist.mean).sample for p in images.split(100)]
    return ((torch.cat(parts).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def psnr(output: Tensor, target: Tensor) -> float:
    """Mean PSNR of uint8 images, in dB."""
    error = ((output.float() - target.float()) / 255).square().mean((1, 2, 3))
    return float(-10 * error.clamp(min=1e-10).log10().mean())


def accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int) -> float:
    """Train a classifier from scratch with the demo's recipe: its accuracy."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = to_unit(train[0]), train[1]
    model = timm.create_model(backbone.ARCHITECTURE, num_classes=len(CLASS_NAMES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.05)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        batch = random_resized_crop(images[rows], 0.6, True, generator)
        loss = F.cross_entropy(model(batch), labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(to_unit(part)) for part in test[0].split(500)])
    return float((logits.argmax(1) == test[1]).float().mean())


def draw_shots(labels: Tensor, seed: int) -> Tensor:
    """Draw which images to train on, SHOTS of each class: (N,) true or false."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    rng = np.random.default_rng(seed)
    for label in range(len(CLASS_NAMES)):
        chosen[rng.choice(np.flatnonzero(labels.numpy() == label), SHOTS, replace=False)] = True
    return chosen


def measure(vae: AutoencoderKL, settings: Evaluation) -> dict[str, float]:
    """Measure the PSNR, and the accuracy of classifiers trained on few images, real or decoded.

    Each seed draws its own images to train on; both kinds are tested on the same other real ones.
    """
    images, labels = held_out_originals()
    decoded = reconstruct(vae, images)
    scores = []
    for seed in range(settings.codec_seeds):
        chosen = draw_shots(labels, seed)
        test = images[~chosen], labels[~chosen]
        scores.append(
            [accuracy((kind[chosen], labels[chosen]), test, seed) for kind in (images, decoded)]
        )
    real, through = np.array(scores).T
    loss = real - through
    return {
        "psnr_original_look": psnr(decoded, images),
        "accuracy_real": float(real.mean()),
        "accuracy_decoded": float(through.mean()),
        "accuracy_lost": float(loss.mean()),
        "accuracy_lost_standard_error": float(loss.std(ddof=1) / len(loss) ** 0.5),
    }


def main() -> None:
    vae = AutoencoderKL.from_pretrained(sys.argv[1], dtype=torch.float32)
    print(json.dumps(measure(vae, Settings.load().evaluation), indent=2))


if __name__ == "__main__":
    main()

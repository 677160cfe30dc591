"""Images whose colour is their class, and trainings on them that take seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from truelike.imageset.writing import Sample, write_image_set
from truelike.training.images import LabelledImages, TrainingSet
from truelike.training.phases import phase_images
from truelike.training.seeds import Training, seed_file
from truelike.training.settings import Optimization, Phase

CLASSES = ["red", "green", "blue"]
OPTIMIZATION = Optimization(
    pretrained=False,
    resolution=None,
    streaming=False,
    steps=12,
    batch_size=8,
    optimizer="adamw",
    lr=2e-3,
    schedule="cosine",
    weight_decay=0.05,
    label_smoothing=0.1,
    warmup_fraction=0.1,
    warmup_lr=0.0,
    crop_scale=0.6,
    flip=True,
    color_jitter=0.0,
    sampling="uniform",
    dtype="float32",
    ema_decay=None,
    deterministic=True,
    log_every=1,
    divide="seeds",
    sync_batch_norm=False,
    compile=False,
)
TRAIN: dict[str, Any] = OPTIMIZATION.model_dump() | {
    "steps": 6,
    "warmup_fraction": 0.05,
    "checkpoint_every": 20,
    "keep": "best",
    "seeds": [0, 3],
    "arms": {
        "real": {"partner": "extra", "phases": [{"on": "real"}]},
        "mixed": {"partner": "synthetic", "phases": [{"on": "real+partner"}]},
        "more_real": {"partner": "extra", "phases": [{"on": "real+partner"}]},
    },
}


def optimization(**changes: Any) -> Optimization:
    """`OPTIMIZATION` with changes."""
    return Optimization.model_validate(OPTIMIZATION.model_dump() | changes)


def coloured(size: int, seed: int) -> LabelledImages:
    """Noise with a square in the colour of the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 3
    pixels = rng.integers(0, 120, (size, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        top, left = rng.integers(0, 16, 2)
        image[top : top + 12, left : left + 12, label] = 255
    return LabelledImages(pixels, labels)


def write(folder: Path, images: LabelledImages, prefix: str) -> None:
    samples = [
        Sample(f"{prefix}{i}", int(label), pixels)
        for i, (label, pixels) in enumerate(zip(images.labels, images.pixels, strict=True))
    ]
    write_image_set(folder, samples, CLASSES)


def training(
    classifier: str, *phases: Phase, optimization: Optimization = OPTIMIZATION
) -> Training:
    return Training(
        classifier=classifier,
        num_classes=3,
        phases=phases or (Phase(on="real+partner"),),
        optimization=optimization,
        real=coloured(30, 0),
        partner=coloured(24, 1),
        evaluated={"validation": coloured(6, 7), "test": coloured(9, 8)},
        checkpoint_every=5,
    )


def images_of(training: Training, phase: Phase) -> list[TrainingSet]:
    """The images of a phase of a training without a teacher."""
    return phase_images(phase, training.real, training.partner)


def load(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """The result of a seed."""
    return dict(np.load(seed_file(folder, seed)))

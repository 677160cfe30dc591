"""An arm of the demo against timm's own loop, a transform per image per epoch:
``python -m benchmarks.training``.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from timm.data import create_transform
from timm.data.dataset import ImageDataset
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader

from benchmarks import compare, table, write
from truelike.config import load_params
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.imageset.tables import undecided
from truelike.imageset.writing import encode_png
from truelike.training.images import LabelledImages, load_images, load_kept
from truelike.training.loop import predict
from truelike.training.networks import input_statistics, open_classifier
from truelike.training.phases import learning_rate
from truelike.training.seeds import Training, seed_file, train_seeds
from truelike.training.settings import Optimization, Phase

WORKERS = 2  # of the usual loop's DataLoader


def write_folder(folder: Path, images: LabelledImages) -> None:
    """An image folder: a PNG file per image in the folder of its class."""
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        place = folder / f"{label:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.png").write_bytes(encode_png(pixels))


def usual_augmentation(optimization: Optimization) -> dict[str, Any]:
    """The options by which timm augments as these settings do."""
    return {
        "scale": (optimization.crop_scale, 1.0),
        "hflip": 0.5 if optimization.flip else 0.0,
        "color_jitter": None,
        "interpolation": "bilinear",
    }


def usual(training: Training, folder: Path, seed: int, workers: int = WORKERS) -> np.ndarray:
    """Train one network as timm's training script does and predict the validation images, float32
    (N, K).
    """
    torch.manual_seed(seed)
    optimization, size = training.optimization, training.resolution
    model = open_classifier(
        training.classifier, training.num_classes, optimization.pretrained, size
    ).train()
    mean, std = input_statistics(model)
    transform = create_transform(
        size,
        is_training=True,
        **usual_augmentation(optimization),
        mean=mean,
        std=std,
    )
    loader = DataLoader(
        ImageDataset(str(folder), transform=transform),
        optimization.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    optimizer = create_optimizer_v2(
        model,
        opt=optimization.optimizer,
        lr=optimization.lr,
        weight_decay=optimization.weight_decay,
    )
    criterion = LabelSmoothingCrossEntropy(optimization.label_smoothing)
    epochs = chain.from_iterable(repeat(loader))
    for step, (images, labels) in zip(range(optimization.steps), epochs, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, optimization.steps, 1.0, optimization)
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return predict(model.eval(), training.evaluated["validation"])


def usual_seeds(
    training: Training, folder: Path, seeds: Sequence[int], found: dict[int, np.ndarray]
) -> None:
    """Train the seeds one after the other, as the script is called."""
    for seed in seeds:
        found[seed] = usual(training, folder, seed)


def our_seeds(training: Training, seeds: Sequence[int], found: dict[int, np.ndarray]) -> None:
    """Train the seeds with nothing finished before."""
    with tempfile.TemporaryDirectory() as folder:
        train_seeds(training, seeds, Path(folder))
        for seed in seeds:
            found[seed] = np.load(seed_file(Path(folder), seed))["validation"]


def accuracy(found: dict[int, np.ndarray], labels: np.ndarray) -> float:
    """Mean over the seeds, in %."""
    return 100 * float(
        np.mean([(probabilities.argmax(1) == labels).mean() for probabilities in found.values()])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    params, seeds = load_params(), range(arguments.seeds)
    validation = ImageSet("outputs/real/validation")
    replicas = open_replicas("outputs/synthetic", params.synthesize.replicas)
    images = load_kept(pd.concat(map(undecided, replicas)), validation.class_names)
    assert isinstance(images, LabelledImages)
    training = Training(
        classifier=params.models.classifier,
        num_classes=len(validation.class_names),
        phases=[Phase(on="partner")],
        optimization=params.train.optimization,
        real=images,
        partner=images,
        evaluated={"validation": load_images(validation)},
        checkpoint_every=params.train.steps,
    )
    theirs: dict[int, np.ndarray] = {}
    own: dict[int, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), images)
        sides = {
            "timm's loop": partial(usual_seeds, training, Path(folder), seeds, theirs),
            "truelike": partial(our_seeds, training, seeds, own),
        }
        costs = compare(sides, arguments.repeats)
    steps, batch_size = params.train.steps, params.train.batch_size
    count = arguments.seeds * steps * batch_size
    lines = [
        f"{len(images)} images, {steps} steps of {batch_size}, {len(seeds)} seeds:",
        "",
    ]
    lines += [*table(costs, "timm's loop"), ""]
    for (name, spent), found in zip(costs.items(), (theirs, own), strict=True):
        share = accuracy(found, validation.labels)
        lines.append(
            f"- {name}: {count / spent.wall:,.0f} images a second, {share:.1f} % of validation "
            "images right"
        )
    write("training", lines)


if __name__ == "__main__":
    main()

"""Judges of the real training images, for allocation: networks that have not trained on the images
which they predict.
"""

import hashlib
from functools import partial

import numpy as np
from torch import nn

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.processes import one_thread
from truelike.runtime.scratch import finished, scratch, scratch_key, write_arrays, write_finished
from truelike.synthesis.allocation import POINTS, Judged
from truelike.synthesis.settings import JudgeSettings
from truelike.training.images import Images, load_images
from truelike.training.loop import LogRow, fit, predict
from truelike.training.networks import open_classifier
from truelike.training.settings import Optimization, Phase


def folds_of(images: ImageSet, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int (N,): as many of every class in each, give or take one, drawn by
    seed and key.
    """

    def drawn(row: int) -> bytes:
        return hashlib.sha256(f"{seed}/fold/{images.keys[row]}".encode()).digest()

    rows = sorted(range(len(images)), key=lambda row: (images.labels[row], drawn(row)))
    numbers = np.empty(len(images), int)
    numbers[rows] = np.arange(len(images)) % folds
    return numbers


def judge_out_of_fold(
    images: ImageSet, classifier: str, optimization: Optimization, judge: JudgeSettings, seed: int
) -> Judged:
    """What networks say of the images of their fold, each trained on those of all other folds as
    the arm `real` is, in ``judge.steps`` steps.

    The judges of a killed run are used again. Fewer steps than POINTS are spread over the points.
    """
    steps = {"steps": judge.steps, "log_every": max(1, judge.steps // POINTS)}
    optimization = optimization.model_copy(update=steps)
    folds = folds_of(images, judge.folds, seed)
    settings = [optimization.model_dump(), judge.model_dump(), seed]
    key = scratch_key(__file__, settings, classifier, images.folder / INDEX_FILE)
    right = np.zeros((POINTS, len(images)), bool)
    entropy = np.zeros(len(images))
    with scratch("allocate", key) as folder:
        loaded = load_images(images, optimization.resolution, optimization.streaming)
        for fold in np.unique(folds):
            file, held = folder / f"{fold}.npz", np.flatnonzero(folds == fold)
            if not finished(file):
                answers = _predictions(
                    loaded.at(np.flatnonzero(folds != fold)),
                    loaded.at(held),
                    len(images.class_names),
                    classifier,
                    optimization,
                    seed,
                )
                write_finished(file, partial(write_arrays, arrays={"answers": answers}))
            answers = np.load(file)["answers"]
            hits = answers.argmax(2) == images.labels[held]
            right[:, held] = hits[np.linspace(0, len(hits) - 1, POINTS).round().astype(int)]
            last = answers[-1].astype(float)
            entropy[held] = -(last * np.log(np.maximum(last, 1e-12))).sum(1)
    return Judged(right, entropy)


def _predictions(
    train: Images,
    held: Images,
    classes: int,
    classifier: str,
    optimization: Optimization,
    seed: int,
) -> np.ndarray:
    """Probabilities of the held-out images while a network is trained, float32 (points, N, K)."""
    opened: list[nn.Module] = []
    answers: list[np.ndarray] = []

    def open_network() -> nn.Module:
        size = train.resolution
        opened.append(open_classifier(classifier, classes, optimization.pretrained, size))
        return opened[0]

    def look(row: LogRow) -> None:
        if row[0] + 1 < optimization.steps:
            answers.append(predict(opened[0].eval(), held))
            opened[0].train()

    with one_thread():
        trained = fit(open_network, lambda _: [train], [Phase(on="real")], optimization, seed, look)
        answers.append(predict(trained, held))
    return np.stack(answers)

"""Trains one arm over all seeds and writes its predictions, its log and its summary."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.imageset.tables import write_table
from truelike.runtime.processes import joined, own_part, wait_for_all
from truelike.runtime.scratch import is_first, scratch, scratch_key
from truelike.training.images import check_partner, load_images, load_kept, partner_rows
from truelike.training.loop import Recipe, phase_steps
from truelike.training.networks import open_classifier
from truelike.training.seeds import Job, seed_file, train_seeds
from truelike.training.settings import Arm, Train

SPLITS = ("validation", "test")
PATIENCE = timedelta(days=30)  # of a process that has trained its seeds, for the others


def train_arm(
    name: str,
    arm: Arm,
    settings: Train,
    classifier: str,
    real: Path,
    selection: Path,
    ood: Sequence[Path],
    out: Path,
) -> None:
    """Train an arm on the image sets under `real` and its partner's `selection`; write `out`.

    Files: predictions.parquet (seed, split, key, label, probs), log.csv (seed, step, phase, loss,
    lr), summary.json. Validation and test images and those of the sets `ood` (split ``ood/NAME``)
    are only predicted, when training is over. A killed run goes on from its checkpoints. Several
    processes share the seeds, and the first writes `out`. An arm on extra real images where there
    are none would repeat another arm: it is not trained, no seed in its summary.json says so, and
    the other files are not written.
    """
    train, evaluated = ImageSet(real / "train"), {split: ImageSet(real / split) for split in SPLITS}
    evaluated |= {f"ood/{folder.name}": other for folder in ood if len(other := ImageSet(folder))}
    table = partner_rows(pd.read_parquet(selection), arm)
    partner = load_kept(table, train.class_names)
    out.mkdir(parents=True, exist_ok=True)
    if arm.partner == "extra" and arm.uses_partner and not len(partner):
        counts = {"real": len(train), "partner": 0, "partner_set": arm.partner}
        _write_summary(out, {"classes": train.class_names, "images": counts, "seeds": []})
        print(f"train.arms.{name}: there are no extra real images, so there is nothing to train")
        return
    check_partner(name, arm, partner, train.class_names)
    recipe = Recipe.of(settings)
    images = load_images(train)
    # Opened here only to count its parameters, and so that a wrong model fails before any process
    # starts.
    model = open_classifier(
        classifier, len(train.class_names), settings.pretrained, images.pixels.shape[1]
    )
    job = Job(
        classifier=classifier,
        pretrained=settings.pretrained,
        num_classes=len(train.class_names),
        phases=arm.phases,
        recipe=recipe,
        real=images,
        partner=partner,
        evaluated={split: load_images(images).pixels for split, images in evaluated.items()},
        checkpoint_every=settings.checkpoint_every,
    )
    key = scratch_key(
        __file__,
        [arm.model_dump(), recipe.__dict__, settings.pretrained],
        classifier,
        selection,
        *(images.folder / INDEX_FILE for images in (train, *evaluated.values())),
        *(Path(folder) / INDEX_FILE for folder in table["folder"].unique()),
    )
    with (
        scratch("train", key) as folder,
        joined(PATIENCE),
    ):  # in this order: none starts before the first may write
        train_seeds(job, settings.seeds[own_part()], folder)
        wait_for_all()
        if not is_first():
            return
        results = {seed: dict(np.load(seed_file(folder, seed))) for seed in settings.seeds}
    write_table(out / "predictions.parquet", _predictions(results, evaluated))
    _log(results).to_csv(out / "log.csv", index=False)
    summary = {
        "classes": train.class_names,
        "images": {"real": len(images), "partner": len(partner), "partner_set": arm.partner},
        "steps": phase_steps(recipe.steps, [phase.share for phase in arm.phases]),
        "seeds": list(settings.seeds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    _write_summary(out, summary)


def _write_summary(out: Path, summary: dict[str, Any]) -> None:
    (out / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _predictions(
    results: dict[int, dict[str, np.ndarray]], evaluated: dict[str, ImageSet]
) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "seed": seed,
                    "split": split,
                    "key": images.keys,
                    "label": images.labels,
                    "probs": list(result[split]),
                }
            )
            for seed, result in results.items()
            for split, images in evaluated.items()
        ],
        ignore_index=True,
    )


def _log(results: dict[int, dict[str, np.ndarray]]) -> pd.DataFrame:
    logs = []
    for seed, result in results.items():
        log = pd.DataFrame(result["log"], columns=["step", "phase", "loss", "lr"]).astype(
            {"step": int, "phase": int}
        )
        log.insert(0, "seed", seed)
        logs.append(log)
    return pd.concat(logs, ignore_index=True)

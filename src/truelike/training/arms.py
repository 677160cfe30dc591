"""Arms: which images each trains on, its training over all seeds, and the files that it writes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.imageset.tables import undecided, write_table
from truelike.paths import CONFIG, NETWORKS
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import joined, own_part, process_count, wait_for_all
from truelike.runtime.scratch import is_first, publish, scratch, scratch_key
from truelike.training.images import Images, load_images, load_kept
from truelike.training.networks import open_classifier
from truelike.training.phases import phase_steps
from truelike.training.seeds import Training, seed_file, train_seeds, weights_file
from truelike.training.settings import Arm, Optimization, Train
from truelike.training.trained import write_config

SPLITS = ("validation", "test")
WAIT = timedelta(days=30)  # of a process that has trained its seeds, for the others


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
    lr), summary.json, and ``networks/SEED`` of the seeds that `settings.keep` asks for. Validation,
    test and `ood` images (split ``ood/NAME``) are only predicted, when training is over. A killed
    run goes on from its checkpoints. Processes share the seeds, and the first writes `out`. An arm
    on extra real images where there are none is not trained: its summary.json has no seed.
    """
    train, evaluated = ImageSet(real / "train"), {split: ImageSet(real / split) for split in SPLITS}
    evaluated |= {f"ood/{folder.name}": other for folder in ood if len(other := ImageSet(folder))}
    rows = partner_rows(pd.read_parquet(selection), arm)
    used = rows if arm.uses_partner else rows.iloc[:0]
    partner = load_kept(used, train.class_names, settings.resolution, settings.streaming)
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {
        "classes": train.class_names,
        "images": {
            "real": len(train),
            "partner": int(rows["keep"].sum()),
            "partner_set": arm.partner,
        },
    }
    if arm.partner == "extra" and arm.uses_partner and not len(partner):
        _write_summary(out, summary | {"seeds": []})
        print(f"train.arms.{name}: there are no extra real images, so there is nothing to train")
        return
    check_partner(name, arm, partner, train.class_names, rows["label"])
    training = _training(arm, settings, classifier, train, partner, evaluated)
    model = _open(training)
    key = _key(
        training, arm, selection, [train, *evaluated.values()], rows["folder"].unique().tolist()
    )
    # In this order: none starts before the first may write.
    with scratch("train", key) as folder, joined(WAIT):
        own = own_part() if settings.divide == "seeds" else slice(None)
        train_seeds(training, settings.seeds[own], folder)
        wait_for_all()
        if not is_first():
            return
        results = {seed: dict(np.load(seed_file(folder, seed))) for seed in settings.seeds}
    write_table(out / "predictions.parquet", _predictions(results, evaluated))
    _log(results).to_csv(out / "log.csv", index=False)
    summary |= _trained(settings, arm, model)
    _write_summary(out, summary)
    accuracy = _accuracy(results, evaluated["validation"].labels)
    for seed in kept_seeds(settings.keep, accuracy):
        described = {"arm": name, "seed": seed, "validation_accuracy": accuracy[seed]}
        publish([weights_file(folder, seed)], out / NETWORKS / str(seed))
        _write_config(out / NETWORKS / str(seed), training, model, summary | described)


def _trained(settings: Train, arm: Arm, model: nn.Module) -> dict[str, Any]:
    """What summary.json says of a training that is over."""
    found: dict[str, Any] = {
        "steps": phase_steps(settings.steps, [phase.share for phase in arm.phases]),
        "seeds": list(settings.seeds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return found | ({"processes": process_count()} if settings.divide == "batch" else {})


def _training(
    arm: Arm,
    settings: Train,
    classifier: str,
    train: ImageSet,
    partner: Images,
    evaluated: Mapping[str, ImageSet],
) -> Training:
    """What decides the arm's networks, with its images decoded, or opened for streaming."""

    def load(images: ImageSet) -> Images:
        return load_images(images, settings.resolution, settings.streaming)

    return Training(
        classifier=classifier,
        num_classes=len(train.class_names),
        phases=arm.phases,
        optimization=settings.optimization,
        real=load(train),
        partner=partner,
        evaluated={split: load(images) for split, images in evaluated.items()},
        checkpoint_every=settings.checkpoint_every,
        keep_weights=settings.keep != "none",
    )


def partner_rows(selection: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of the partner's selection table that an arm uses: of its first replicas; undecided
    if it wants all.
    """
    folders = selection["folder"].unique()[: arm.replicas]
    if not arm.selected:
        return pd.concat([undecided(ImageSet(folder)) for folder in folders], ignore_index=True)
    return selection[selection["folder"].isin(folders)]


def check_partner(
    name: str, arm: Arm, partner: Images, class_names: Sequence[str], made: Iterable[int]
) -> None:
    """Raise TruelikeError if the arm is to train on a partner set in which some class has no image.

    `made` are the labels of the set before selection. A class that is not among them may be
    missing, as long as some phase sees real images.
    """
    if not arm.uses_partner:
        return
    counts, labels = np.bincount(partner.labels, minlength=len(class_names)), set(made)
    sees_real = any(phase.on != "partner" for phase in arm.phases)
    absent = np.flatnonzero(counts == 0).tolist()
    lacking = [label for label in absent if label in labels or not sees_real]
    missing = [class_names[label] for label in lacking]
    if missing:
        if arm.partner == "extra":
            advice = (
                "set data.shots to fewer images, so that some are left over, or take the arm out "
                "of train.arms"
            )
        elif lacking[0] not in labels:
            advice = (
                "synthesize.allocation gave it none: choose another, or take the arm out of "
                "train.arms"
            )
        else:
            advice = (
                f"lower select.min_class_probability or take {arm.partner!r} out of select.sets"
            )
        raise TruelikeError(
            f"train.arms.{name}: no image of class {missing[0]!r} is left in the partner set "
            f"'{arm.partner}'"
            f"{f' (nor of {len(missing) - 1} more classes)' if len(missing) > 1 else ''}; {advice}"
        )


def _key(
    training: Training, arm: Arm, selection: Path, sets: Sequence[ImageSet], partners: Sequence[str]
) -> str:
    """Changes with everything that decides the arm's files; not with its number of seeds."""
    decides = [arm.model_dump(), training.optimization.model_dump()]
    if training.optimization.divide == "batch":
        decides.append({"processes": process_count()})
    indexes = [images.folder / INDEX_FILE for images in sets]
    indexes += [Path(folder) / INDEX_FILE for folder in partners]
    return scratch_key(__file__, decides, training.classifier, selection, *indexes)


def _open(training: Training) -> nn.Module:
    """The network before training, so that a wrong model fails before any process starts."""
    return open_classifier(
        training.classifier,
        training.num_classes,
        training.optimization.pretrained,
        training.resolution,
    )


def _write_config(
    network: Path, training: Training, model: nn.Module, described: dict[str, Any]
) -> None:
    known = ("arm", "seed", "validation_accuracy", "images", "steps")
    summary = {name: described[name] for name in known}
    summary["optimization"] = _described(training.optimization)
    write_config(model, training.resolution, described["classes"], summary, network / CONFIG)


def _described(optimization: Optimization) -> dict[str, Any]:
    """Its parameters, without those of how it is computed that are off."""
    off = {name for name in ("sync_batch_norm", "compile") if not getattr(optimization, name)}
    return optimization.model_dump(exclude=off)


def _accuracy(
    results: Mapping[int, Mapping[str, np.ndarray]], labels: np.ndarray
) -> dict[int, float]:
    """The accuracy of each seed on validation, percent."""
    return {
        seed: 100 * float((result["validation"].argmax(1) == labels).mean())
        for seed, result in results.items()
    }


def kept_seeds(keep: Literal["best", "all", "none"], accuracy: Mapping[int, float]) -> list[int]:
    """The seeds whose networks are kept; the best one, or of equal ones the first."""
    if keep == "best":
        return [max(accuracy, key=lambda seed: accuracy[seed])]
    return list(accuracy) if keep == "all" else []


def _write_summary(out: Path, summary: dict[str, Any]) -> None:
    (out / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _predictions(
    results: Mapping[int, Mapping[str, np.ndarray]], evaluated: Mapping[str, ImageSet]
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


def _log(results: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    logs = []
    for seed, result in results.items():
        log = pd.DataFrame(result["log"], columns=["step", "phase", "loss", "lr"]).astype(
            {"step": int, "phase": int}
        )
        log.insert(0, "seed", seed)
        logs.append(log)
    return pd.concat(logs, ignore_index=True)

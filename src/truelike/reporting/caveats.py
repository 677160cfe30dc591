"""What a reader must know before believing the numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.reporting.material import Material

DEMO_DATA = "data/fashion"
DEMO_MODELS = {  # which know clothes alone: role, path, and what that spoils on other images
    "generator": (
        "models/generator",
        "it makes poor pictures of anything else, and the verdict says little about what a real "
        "generator would do; point models.generator at a full text-to-image model, for example "
        "with `truelike use sd15`",
    ),
    "captioner": (
        "models/captioner",
        "its captions of anything else are wrong, and the prompts with them",
    ),
    "encoder": (
        "models/encoder",
        "fidelity, coverage and near-copies are measured in its features, which separate other "
        "images poorly",
    ),
}
FEW_VALIDATION, FEW_PER_CLASS = 100, 10  # images
FEW_STEPS = 100  # of an optimizer
FEW_SEEDS = 3
WORST_CLASSES = 5  # that are named
MANY_DROPPED, MANY_OF_A_CLASS = 0.1, 0.5


def caveats(material: Material) -> list[str]:
    """The report's warnings, each a sentence or more."""
    return [
        *_of_the_models(material),
        *_of_the_verdict(material.accuracy_metrics["verdict"]),
        *_of_the_rounds(material),
        *_of_the_training(material),
        *_of_the_prompts(material),
        *_of_the_selection(material),
    ]


def _of_the_models(material: Material) -> Iterator[str]:
    settings = material.settings
    for model in material.models:
        demo = DEMO_MODELS.get(model.role)
        if demo and Path(model.path) == Path(demo[0]) and not _is_demo(settings.data.source):
            yield (
                f"models.{model.role} ({model.path}) is a demonstration model, trained on pictures "
                f"of clothes alone: {demo[1]}."
            )
        if not model.pinned and (model.role != "classifier" or settings.train.pretrained):
            yield (
                f"models.{model.role} ({model.path}) is not pinned to a revision: the same "
                "settings may give another result when its owner changes it. Write the commit hash "
                "into the file."
            )


def _is_demo(source: str) -> bool:
    return Path(source) == Path(DEMO_DATA)


def _of_the_rounds(material: Material) -> Iterator[str]:
    arm = material.accuracy_metrics["verdict"]["arm"]
    if arm and material.settings.train.arms[arm].partner.startswith("rounds/"):
        yield (
            f"The verdict's arm {arm} trained on images of rounds too, which are neither selected "
            "nor audited: near-copies, fidelity, coverage and gates are of the synthetic set alone."
        )


def _of_the_training(material: Material) -> Iterator[str]:
    settings = material.settings
    if len(settings.train.seeds) < FEW_SEEDS:
        yield (
            f"Only {len(settings.train.seeds)} training seed(s): the intervals hardly know how "
            "much training varies."
        )
    names = material.validation.class_names
    counts = np.bincount(material.validation.labels, minlength=len(names))
    if counts.sum() < FEW_VALIDATION or counts.min() < FEW_PER_CLASS:
        yield (
            f"Only {counts.sum()} validation images, {counts.min()} of the class "
            f"{names[int(counts.argmin())]}: the verdict's arm is chosen on them, hardly better "
            "than by chance."
        )
    steps = {"train.steps": settings.train.steps}
    if settings.invert.enabled:
        steps["invert.steps"] = settings.invert.steps
    if settings.adapt.enabled:
        steps["adapt.steps"] = settings.adapt.steps
    few = [f"{name} = {number}" for name, number in steps.items() if number < FEW_STEPS]
    if few:
        yield f"Few optimizer steps ({', '.join(few)}): what is learned is far from finished."


def _of_the_prompts(material: Material) -> Iterator[str]:
    captions = material.captions["truncated"].astype(bool)
    prompts = pd.concat([images.index["truncated"] for images in material.synthetic]).astype(bool)
    if captions.any():
        yield (
            f"{captions.sum()} of {len(captions)} captions were cut at caption.max_tokens = "
            f"{material.settings.caption.max_tokens}."
        )
    if material.caption_summary["contradicting"] and material.settings.prompts.caption:
        yield _contradictions(material.caption_summary)
    if prompts.any():
        yield (
            f"{prompts.sum()} of {len(prompts)} prompts were cut at the generator's token limit: "
            "what stood behind it was not drawn."
        )


def _contradictions(summary: Mapping[str, Any]) -> str:
    counts = sorted(summary["by_class"].items(), key=lambda item: -item[1])
    worst = ", ".join(f"{name} {count}" for name, count in counts[:WORST_CLASSES])
    rest = f" and {len(counts) - WORST_CLASSES} more classes" if len(counts) > WORST_CLASSES else ""
    text = (
        f"{summary['contradicting']} of {summary['captions']} captions name another class than the "
        f"label ({worst}{rest}), "
    )
    if not (summary["recaptioned"] or summary["dropped"]):
        return (
            f"{text}so that their prompts ask for two things: caption.contradicting can leave them "
            "out or have them made again."
        )
    treated = {
        "were made again with the class": summary["recaptioned"],
        "were left out, for prompts of the class alone": summary["dropped"],
    }
    done = " and ".join(f"{count} {what}" for what, count in treated.items() if count)
    return f"{text}of which {done}."


def _of_the_selection(material: Material) -> Iterator[str]:
    counts = material.class_counts()
    if missing := counts.index[counts["kept"] == 0].tolist():
        yield (
            f"There are no synthetic images of {', '.join(missing)}: fidelity, coverage and gaps "
            "below are of the other classes alone."
        )
    selection = material.selection
    kept = selection["keep"].astype(bool)
    by_class = 1 - kept.groupby(selection["label"]).mean()
    worst = sorted(selection["label"].unique())[by_class.to_numpy().argmax()]
    if 1 - kept.mean() > MANY_DROPPED or by_class.max() > MANY_OF_A_CLASS:
        copies = selection["reason"].str.startswith("near-copy").sum()
        name = material.real.class_names[worst]
        yield (
            f"Selection dropped {(~kept).sum()} of {len(kept)} synthetic images, {copies} of them "
            f"as near-copies, and {100 * by_class.max():.0f} % of the class {name}: look at them "
            "below before you trust either the images or the limits of `select`."
        )


def _of_the_verdict(verdict: Mapping[str, Any]) -> list[str]:
    texts = []
    if ties := verdict["near_ties"]:
        texts.append(
            f"On validation images {' and '.join(ties)} {'is' if len(ties) == 1 else 'are'} within "
            f"a standard error of {verdict['arm']}: which of them is best is not settled."
        )
    if name := verdict["carried_by"]:
        rest = verdict["points"] - verdict["gain_by_class"][name]
        texts.append(
            f"One class, {name}, supplies most of the difference: without it {rest:+.1f} of "
            f"{verdict['points']:+.1f} points would be left."
        )
    return texts

"""DATASET.md: what a synthetic set is made from, how, what was measured, and what it is good
for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truelike.config import Params
from truelike.reporting.measures import GAPS, MEASURES
from truelike.reporting.provenance import ModelSource

SETTINGS = ("prompts", "caption", "visual_guidance", "invert", "adapt", "synthesize", "select")


def dataset_card(
    params: Params,
    models: Sequence[ModelSource],
    class_names: list[str],
    counts: Mapping[str, int],
    accuracy: Mapping[str, Any],
    audit: Mapping[str, Any],
    warnings: list[str],
) -> Iterator[str]:
    """The lines of the card, markdown; `accuracy` and `audit` are metrics/accuracy.json and
    audit.json.

    `counts` of images: `real`, `synthetic`, `kept`.
    """
    measures, gaps = audit["measures"], audit["gaps"]
    yield from ("# The synthetic images", "", f"**{accuracy['verdict']['sentence']}**", "")
    yield from (
        "## What it is",
        f"{counts['synthetic']} images of {params.data.resolution} pixels in `outputs/synthetic/`, "
        f"{len(params.synthesize.replicas)} per real training image, in {len(class_names)} "
        "classes: "
        f"{', '.join(class_names)}. {counts['kept']} are kept by "
        "`outputs/selection/synthetic.parquet`, which says "
        "why the others are not. An index row has the prompt, the seed and the real image that its "
        "image was made for.",
        "",
        "## Made from",
        f"- {counts['real']} real training images of `{params.data.source}`. Their licence and "
        "their subjects' rights "
        "reach the synthetic images too: each is derived from a real one.",
    )
    for model in models:
        digests = "".join(f"; `{file}` {digest[:16]}" for file, digest in model.weights)
        yield f"- {model.role}: `{model.path}`, {model.origin}{digests}. Licence: {model.licence}."
    yield from ("", "## Settings", "| parameter | value |", "|---|---|")
    sections = params.model_dump(mode="json", include=set(SETTINGS))
    yield from (
        f"| `{name}.{key}` | `{value}` |"
        for name in SETTINGS
        for key, value in sections[name].items()
    )
    yield from (
        "",
        "## Measures",
        "95 % intervals; `real` are held-out real images, measured in the same way.",
        "",
    )
    yield from ("| measure | synthetic | real |", "|---|---|---|")
    for name, (words, digits, factor) in MEASURES.items():
        cells = (_cell(measures[kind][name], digits, factor) for kind in ("synthetic", "real"))
        yield f"| {words} | {' | '.join(cells)} |"
    worth = _cell(measures["synthetic"]["real_equivalent"], 1, 1)
    yield from (
        "",
        f"To a linear probe, all of them are worth {worth} real images per class.",
        "",
        "## Known gaps",
    )
    yield from (
        f"- {words}: {_cell(gaps[gap]['synthetic'], d, f)} ({what})"
        for gap, (words, what, d, f) in GAPS.items()
    )
    yield from (f"- {text}" for text in warnings)
    yield from (
        "",
        "## Intended use",
        "Training classifiers of these classes, beside the real images or before them, tested on "
        "real images. Not as "
        "test images, not as a portrayal of the world, and not in place of real images that must "
        "stay private: "
        "near-copies were searched for, which proves no privacy.",
    )


def _cell(interval: Mapping[str, float] | None, digits: int, factor: float) -> str:
    if interval is None:
        return "not measured"
    value, low, high = (
        f"{factor * interval[name]:.{digits}f}" for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"

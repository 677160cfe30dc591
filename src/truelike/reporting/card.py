"""DATASET.md: what a synthetic set is made from, how, what was measured, and what it is good
for.
"""

from collections.abc import Mapping, Sequence

from truelike.audit.gaps import GAPS
from truelike.reporting.material import Material
from truelike.reporting.measures import MEASURES
from truelike.reporting.rendering import render_template
from truelike.synthesis.settings import Synthesize

SECTIONS = ("prompts", "caption", "visual_guidance", "invert", "adapt", "synthesize", "select")


def dataset_card(material: Material, caveats: Sequence[str]) -> str:
    """The card in markdown, with the report's caveats among the known gaps."""
    measures, gaps = material.audit_metrics["measures"], material.audit_metrics["gaps"]
    settings = material.settings
    return render_template(
        "DATASET.md.j2",
        verdict=material.accuracy_metrics["verdict"],
        counts=material.image_counts(),
        resolution=settings.data.resolution,
        source=settings.data.source,
        spread=_spread(settings.synthesize),
        class_names=material.real.class_names,
        models=material.models,
        settings={
            name: text
            for name, text in settings.texts.items()
            if name.partition(".")[0] in SECTIONS
        },
        measures=[
            (
                title,
                *(_cell(measures[kind][name], digits, factor) for kind in ("synthetic", "real")),
            )
            for name, (title, digits, factor) in MEASURES.items()
        ],
        worth=_cell(measures["synthetic"]["real_equivalent"], 1, 1),
        gaps=[
            (gap.title, _cell(gaps[name]["synthetic"], gap.digits, gap.factor), gap.meaning)
            for name, gap in GAPS.items()
        ],
        caveats=caveats,
    )


def _spread(settings: Synthesize) -> str:
    """How many images there are of each real one, in words."""
    replicas = len(settings.replicas)
    if settings.allocation == "each" and settings.budget is None:
        return f"{replicas} per real training image"
    budget = "one image per real one" if settings.budget is None else f"{settings.budget} images"
    return f"{replicas} replicas of {budget}, allocated by `{settings.allocation}`"


def _cell(interval: Mapping[str, float] | None, digits: int, factor: float) -> str:
    if interval is None:
        return "not measured"
    value, low, high = (
        f"{factor * interval[name]:.{digits}f}" for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"

"""What a reader must know before believing the numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truelike.reporting.material import Material

DEMO_DATA = "data/fashion"
DEMO_GENERATOR = "models/generator"


def caveats(material: Material) -> list[str]:
    """The report's warnings, each a sentence or more."""
    settings = material.settings
    texts = []
    is_demo_data = Path(settings.data.source) == Path(DEMO_DATA)
    if settings.models["generator"].startswith(DEMO_GENERATOR) and not is_demo_data:
        texts.append(
            "The embedded models are a demonstration base: small networks trained on pictures of "
            "clothes. On other images they make poor pictures, and the verdict says little about "
            "what a real generator would do. Point models.generator at a full text-to-image model, "
            "for example with `truelike use`."
        )
    texts += [
        f"models.{model.role} ({model.path}) is not pinned to a revision: the same settings may "
        "give another result when its owner changes it. Write the commit hash into the file."
        for model in material.models
        if not model.pinned and (model.role != "classifier" or settings.train.pretrained)
    ]
    if len(settings.train.seeds) < 3:
        texts.append(
            f"Only {len(settings.train.seeds)} training seed(s): the intervals hardly know how "
            "much training varies."
        )
    return texts + _of_the_verdict(material.accuracy_metrics["verdict"])


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

"""What a reader must know before believing the numbers."""

from pathlib import Path

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
    return texts

"""What each arm cost, out of the ledger of stages."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from truelike.reporting.material import Settings
from truelike.synthesis.settings import Piece

MAKERS = {  # stages whose images an arm's partner is
    "synthetic": ("caption", "embed", "invert", "adapt", "allocate", "synthesize", "select"),
    "naive": ("naive",),
    "extra": (),
}
PIECE_MAKERS: dict[Piece, str] = {"caption": "caption", "style": "invert", "adapter": "adapt"}


def active_stages(settings: Settings) -> set[str]:
    """The stages that these settings ask to work, by the names that the ledger has."""
    stages = {"prepare", "train", "evaluate", "audit", "report", "embed"}
    switches = {
        "caption": settings.caption.by != "none",
        "invert": settings.invert.enabled,
        "adapt": settings.adapt.enabled,
        "select": bool(settings.select.sets),
        "corrupt": settings.corrupt.images_per_class != 0 and bool(settings.corrupt.kinds),
        "halves": bool(settings.shadows),
        "attack": bool(settings.shadows),
        "allocate": settings.synthesize.is_judged,
    }
    stages |= {stage for stage, is_on in switches.items() if is_on}
    parts: dict[str, Iterable[object]] = {
        "naive": settings.synthesize.replicas,
        "synthesize": settings.synthesize.replicas,
        "partial": settings.partial,
        "round": settings.rounds,
        "train": settings.train.arms,
        "ood": settings.ood,
        "shadow": settings.shadows,
    }
    return stages | {f"{stage}@{part}" for stage, names in parts.items() for part in names}


def arm_costs(
    costs: pd.DataFrame,
    settings: Settings,
    accuracy: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """What each arm took, in seconds: making its partner's images, training, and both, beside its
    accuracy.
    """
    single = costs.set_index("stage")["seconds"]
    seconds = pd.concat([single, single.groupby(single.index.str.split("@").str[0]).sum()])
    seconds = seconds[~seconds.index.duplicated()]
    rows = []
    for name in settings.train.arms:
        if name in accuracy and f"train@{name}" in seconds.index:
            *makers, trained = _networks(name, settings)
            making = float(seconds.reindex(list(dict.fromkeys(makers))).sum())
            training = float(seconds[trained])
            times = {"making": making, "training": training, "together": making + training}
            rows.append({"arm": name} | times | dict(accuracy[name]))
    return rows


def _makers(partner: str, settings: Settings) -> list[str]:
    kind, _, name = partner.partition("/")
    if kind == "rounds":
        own = settings.rounds[name]
        return [*_makers(own.adds_to, settings), *_networks(own.after, settings), f"round@{name}"]
    if kind in ("naive", "extra"):
        return list(MAKERS[kind])
    asked = settings.synthesize.feedback.arm
    guides = _networks(asked, settings) if asked else []
    if kind == "synthetic":
        return [*MAKERS[kind], *guides]
    without = settings.partial[name].without
    used = [stage for piece, stage in PIECE_MAKERS.items() if piece not in without]
    return [*used, "allocate", *guides, f"partial@{name}"]


def _networks(name: str, settings: Settings) -> list[str]:
    """The stages that an arm's networks come from."""
    arm = settings.train.arms[name]
    return [*(_makers(arm.partner, settings) if arm.uses_partner else ()), f"train@{name}"]

"""Everything the report tells of, read from what the stages made."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.adaptation.settings import Adapt, Invert
from truelike.audit.settings import Audit
from truelike.captioning.settings import Caption
from truelike.evaluation.settings import Evaluate
from truelike.generator.settings import Prompts
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.paths import (
    ACCURACY,
    ADAPTER,
    ARMS,
    AUDIT,
    CAPTION_SUMMARY,
    CAPTIONS,
    COMPARISONS,
    CONFUSION,
    MEMBERSHIP,
    METRICS,
    NAIVE,
    OOD,
    OOD_ACCURACY,
    STYLE,
    SYNTHETIC,
    TRAIN,
    VALIDATION,
    selection_table,
)
from truelike.reporting.losses import read_losses
from truelike.reporting.provenance import ModelSource, model_sources, used_models
from truelike.reporting.settings import Report
from truelike.runtime.ledger import latest_costs
from truelike.selection.settings import Select
from truelike.sources.settings import Corrupt, Data
from truelike.synthesis.settings import PartialSet, Round, Synthesize
from truelike.training.settings import Train


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml that the report speaks of; `ood` are the sets' names, `shadows`
    those of ``privacy``, `models` paths by role, `texts` every parameter by its dotted name.
    """

    data: Data
    corrupt: Corrupt
    prompts: Prompts
    caption: Caption
    invert: Invert
    adapt: Adapt
    synthesize: Synthesize
    partial: Mapping[str, PartialSet]
    rounds: Mapping[str, Round]
    select: Select
    train: Train
    evaluate: Evaluate
    audit: Audit
    report: Report
    ood: Collection[str]
    shadows: Collection[int]
    models: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def partners(self) -> dict[str, str]:
        """The partner set of every arm."""
        return {name: arm.partner for name, arm in self.train.arms.items()}


@dataclass(frozen=True)
class Material:
    """Image sets, tables and metrics of one finished pipeline run."""

    settings: Settings
    real: ImageSet
    validation: ImageSet
    naive: Sequence[ImageSet]
    synthetic: Sequence[ImageSet]
    captions: pd.DataFrame
    caption_summary: Mapping[str, Any]
    selection: pd.DataFrame
    accuracy: pd.DataFrame
    accuracy_metrics: Mapping[str, Any]
    comparisons: pd.DataFrame
    confusion: pd.DataFrame
    ood: pd.DataFrame
    ood_sets: Mapping[str, ImageSet]
    per_class: pd.DataFrame
    near_copies: pd.DataFrame
    curves: pd.DataFrame
    audit_metrics: Mapping[str, Any]
    membership: pd.DataFrame
    privacy_metrics: Mapping[str, Any]
    models: Sequence[ModelSource]
    losses: pd.DataFrame
    costs: pd.DataFrame

    def image_counts(self) -> dict[str, int]:
        """Images of each set, and `kept` of the synthetic ones."""
        return {
            "real": len(self.real),
            "naive": sum(map(len, self.naive)),
            "synthetic": sum(map(len, self.synthetic)),
            "kept": int(self.selection["keep"].sum()),
        }

    def class_counts(self) -> pd.DataFrame:
        """The real training images of each class, and the synthetic ones made and kept, by class
        name; of a relabelled one its new class counts.
        """
        names = self.real.class_names
        made = self.selection["label"].to_numpy(np.int64)
        kept = made[self.selection["keep"].to_numpy(bool)]
        labels = {"real": self.real.labels, "made": made, "kept": kept}
        counts = {name: np.bincount(own, minlength=len(names)) for name, own in labels.items()}
        return pd.DataFrame(counts, index=names)


def read_material(settings: Settings) -> Material:
    """Read what a finished run of these settings has made."""
    replicas = settings.synthesize.replicas
    return Material(
        settings=settings,
        real=ImageSet(TRAIN),
        validation=ImageSet(VALIDATION),
        naive=open_replicas(NAIVE, replicas),
        synthetic=open_replicas(SYNTHETIC, replicas),
        captions=pd.read_parquet(CAPTIONS),
        caption_summary=_read_json(CAPTION_SUMMARY),
        selection=pd.read_parquet(selection_table("synthetic")),
        accuracy=pd.read_parquet(ACCURACY),
        accuracy_metrics=_read_json(METRICS / "accuracy.json"),
        comparisons=pd.read_parquet(COMPARISONS),
        confusion=pd.read_parquet(CONFUSION),
        ood=pd.read_parquet(OOD_ACCURACY),
        ood_sets={name: ImageSet(OOD / name) for name in (*settings.ood, "corrupted")},
        per_class=pd.read_parquet(AUDIT / "per_class.parquet"),
        near_copies=pd.read_parquet(AUDIT / "near_copies.parquet"),
        curves=pd.read_parquet(AUDIT / "curves.parquet"),
        audit_metrics=_read_json(METRICS / "audit.json"),
        membership=pd.read_parquet(MEMBERSHIP),
        privacy_metrics=_read_json(METRICS / "privacy.json"),
        models=model_sources(used_models(settings.models, settings.caption)),
        losses=read_losses(_trainings(settings)),
        costs=latest_costs(),
    )


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _trainings(settings: Settings) -> list[tuple[str, str, Path]]:
    """What was trained: its kind, its name, and the directory of its ``log.csv``."""
    inversion = [("inversion", "style", STYLE)] if settings.invert.enabled else []
    adaptation = [("adaptation", "adapter", ADAPTER)] if settings.adapt.enabled else []
    return inversion + adaptation + [("training", arm, ARMS / arm) for arm in settings.train.arms]

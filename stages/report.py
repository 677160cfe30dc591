"""Put the verdict, the figures and the pictures on one page that works offline."""

import json
from pathlib import Path

import pandas as pd

from stages import run
from truelike.config import Params, load_params
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
    REPORTS,
    STYLE,
    SYNTHETIC,
    TRAIN,
    VALIDATION,
    selection_table,
)
from truelike.reporting.gates import breaches
from truelike.reporting.losses import read_losses
from truelike.reporting.material import Material, Settings
from truelike.reporting.page import write_report
from truelike.reporting.provenance import model_sources, used_models
from truelike.reporting.rendering import flatten
from truelike.reporting.summary import key_numbers
from truelike.runtime.errors import TruelikeError
from truelike.runtime.ledger import latest_costs


def main() -> None:
    params = load_params()
    settings = settings_of(params)
    material = Material(
        settings=settings,
        real=ImageSet(TRAIN),
        validation=ImageSet(VALIDATION),
        naive=open_replicas(NAIVE, params.synthesize.replicas),
        synthetic=open_replicas(SYNTHETIC, params.synthesize.replicas),
        captions=pd.read_parquet(CAPTIONS),
        caption_summary=json.loads(CAPTION_SUMMARY.read_text(encoding="utf-8")),
        selection=pd.read_parquet(selection_table("synthetic")),
        accuracy=pd.read_parquet(ACCURACY),
        accuracy_metrics=json.loads((METRICS / "accuracy.json").read_text()),
        comparisons=pd.read_parquet(COMPARISONS),
        confusion=pd.read_parquet(CONFUSION),
        ood=pd.read_parquet(OOD_ACCURACY),
        ood_sets={name: ImageSet(OOD / name) for name in (*params.ood, "corrupted")},
        per_class=pd.read_parquet(AUDIT / "per_class.parquet"),
        near_copies=pd.read_parquet(AUDIT / "near_copies.parquet"),
        curves=pd.read_parquet(AUDIT / "curves.parquet"),
        audit_metrics=json.loads((METRICS / "audit.json").read_text()),
        membership=pd.read_parquet(MEMBERSHIP),
        privacy_metrics=json.loads((METRICS / "privacy.json").read_text()),
        models=model_sources(used_models(settings.models, params.caption)),
        losses=read_losses(trainings(params)),
        costs=latest_costs(),
    )
    accuracy, audit, privacy = (
        material.accuracy_metrics,
        material.audit_metrics,
        material.privacy_metrics,
    )
    write_report(material, REPORTS)
    numbers = json.dumps(key_numbers(accuracy, audit, privacy), indent=2)
    (METRICS / "summary.json").write_text(numbers + "\n", encoding="utf-8")
    print(f"{accuracy['verdict']['headline']}\nreports/report.html")
    if lines := breaches(params.audit.gates, accuracy, audit, privacy):
        raise TruelikeError("\n".join(lines))


def trainings(params: Params) -> list[tuple[str, str, Path]]:
    """What was trained: its kind, its name, and the directory of its ``log.csv``."""
    inversion = [("inversion", "style", STYLE)] if params.invert.enabled else []
    adaptation = [("adaptation", "adapter", ADAPTER)] if params.adapt.enabled else []
    return inversion + adaptation + [("training", arm, ARMS / arm) for arm in params.train.arms]


def settings_of(params: Params) -> Settings:
    """What the report shows of the parameters."""
    return Settings(
        data=params.data,
        corrupt=params.corrupt,
        prompts=params.prompts,
        caption=params.caption,
        invert=params.invert,
        adapt=params.adapt,
        synthesize=params.synthesize,
        partial=params.partial,
        rounds=params.rounds,
        select=params.select,
        train=params.train,
        evaluate=params.evaluate,
        audit=params.audit,
        report=params.report,
        ood=list(params.ood),
        shadows=params.privacy.shadows,
        models=params.models.model_dump(exclude={"dtype", "compile"}),
        texts=dict(flatten(params.model_dump())),
    )


if __name__ == "__main__":
    run("report", main)

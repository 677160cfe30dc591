"""Put the verdict, the figures and the pictures on one page that works offline."""

import json
from pathlib import Path

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.reporting.gates import breaches
from truelike.reporting.measures import key_numbers
from truelike.reporting.page import Material, write_report
from truelike.reporting.provenance import model_sources, used_models
from truelike.runtime.errors import TruelikeError
from truelike.runtime.ledger import latest_costs


def main() -> None:
    params = load_params()
    material = Material(
        params=params,
        real=ImageSet("outputs/real/train"),
        naive=open_replicas("outputs/naive", params.synthesize.replicas),
        synthetic=open_replicas("outputs/synthetic", params.synthesize.replicas),
        captions=pd.read_parquet("outputs/captions.parquet"),
        selection=pd.read_parquet("outputs/selection/synthetic.parquet"),
        accuracy=pd.read_parquet("outputs/accuracy.parquet"),
        accuracy_metrics=json.loads(Path("metrics/accuracy.json").read_text()),
        comparisons=pd.read_parquet("outputs/comparisons.parquet"),
        confusion=pd.read_parquet("outputs/confusion.parquet"),
        ood=pd.read_parquet("outputs/ood.parquet"),
        ood_sets={name: ImageSet(Path("outputs/ood") / name) for name in (*params.ood, "corrupted")},
        per_class=pd.read_parquet("outputs/audit/per_class.parquet"),
        near_copies=pd.read_parquet("outputs/audit/near_copies.parquet"),
        curves=pd.read_parquet("outputs/audit/curves.parquet"),
        audit_metrics=json.loads(Path("metrics/audit.json").read_text()),
        membership=pd.read_parquet("outputs/membership.parquet"),
        privacy_metrics=json.loads(Path("metrics/privacy.json").read_text()),
        models=model_sources(used_models(params)),
        costs=latest_costs(),
    )
    accuracy, audit, privacy = material.accuracy_metrics, material.audit_metrics, material.privacy_metrics
    write_report(material, Path("reports"))
    numbers = json.dumps(key_numbers(accuracy, audit, privacy), indent=2)
    Path("metrics/summary.json").write_text(numbers + "\n", encoding="utf-8")
    print(f"{accuracy['verdict']['sentence']}\nreports/report.html")
    if found := breaches(params.audit.gates, accuracy, audit, privacy):
        raise TruelikeError("\n".join(found))


if __name__ == "__main__":
    run("report", main)

"""Measure how near synthetic images are to the real ones, and to single training images, in the
encoder's features.
"""

import json
from pathlib import Path

import pandas as pd

from stages import run
from truelike.audit.audit import audit
from truelike.audit.extract import extract, extract_views
from truelike.config import load_params
from truelike.imageset.reading import ImageSet, open_replicas
from truelike.imageset.tables import write_table
from truelike.paths import AUDIT, METRICS, NAIVE, SYNTHETIC, TEST, TRAIN, selection_table


def main() -> None:
    params = load_params()
    how = (params.encoder, params.audit.batch_size)
    train = ImageSet(TRAIN)
    selection = pd.read_parquet(selection_table("synthetic"))
    chosen = selection[selection["keep"]]
    kept = dict(zip(chosen["key"], chosen["label"], strict=True))
    replicas = selection["folder"].map(lambda folder: Path(folder).name).unique()
    sets = {
        "naive": extract(open_replicas(NAIVE, replicas), *how),
        "synthetic": extract(open_replicas(SYNTHETIC, replicas), *how, kept),
        "real": extract([ImageSet(TEST)], *how),
    }
    reference, views = extract([train], *how), extract_views(train, *how)
    neighbours, bootstrap, seed = params.audit.neighbours, params.audit.bootstrap, params.audit.seed
    findings = audit(reference, views, sets, train.class_names, neighbours, bootstrap, seed)
    for name in ("per_class", "near_copies", "curves"):
        write_table(AUDIT / f"{name}.parquet", getattr(findings, name))
    file = METRICS / "audit.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(findings.numbers(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run("audit", main)

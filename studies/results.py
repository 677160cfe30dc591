"""What the studies reached: studies/results.csv, a row for each arm of each run and draw."""

import json
import subprocess
from itertools import product
from pathlib import Path

import dvc.api
import pandas as pd

from studies import DRAWS, experiment_name, load_studies

TABLE = Path(__file__).parent / "results.csv"
COLUMNS = [
    "study",
    "run",
    "draw",
    "commit",  # that the experiment started from
    "arm",
    "accuracy",  # on test images; this and the next three are in percent
    "validation accuracy",
    "macro F1",
    "recall of the worst class",
    "coverage",  # of the real training images by the synthetic ones, 0 to 1; empty without them
]


def load_results(path: Path = TABLE) -> pd.DataFrame:
    """The table as it was written last."""
    return pd.read_csv(path, dtype={"commit": str})


def collect(known: pd.DataFrame) -> pd.DataFrame:
    """The rows of every run of the plan: of its newest DVC experiment, or as they are known where
    this repository has none.
    """
    listed = ["git", "for-each-ref", "--sort=creatordate", "--format=%(refname)", "refs/exps"]
    refs = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    experiments = {ref.rsplit("/", 1)[1]: ref for ref in refs}
    parts = []
    for name, study in load_studies().items():
        for run, draw in product(study.runs, DRAWS):
            if ref := experiments.get(experiment_name(name, run, draw)):
                parts.append(read(ref).assign(study=name, run=run, draw=draw))
            else:
                same = (known["study"] == name) & (known["run"] == run) & (known["draw"] == draw)
                parts.append(known[same])
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def read(ref: str) -> pd.DataFrame:
    """The rows of an experiment, without study, run and draw."""
    accuracy, audit = (
        json.loads(dvc.api.read(f"metrics/{name}.json", rev=ref)) for name in ("accuracy", "audit")
    )
    coverage = audit["measures"]["synthetic"]["coverage"]
    _, _, *commit, _ = ref.split("/")
    rows = [
        {
            "commit": "".join(commit)[:10],
            "arm": arm,
            "accuracy": reached["top1"],
            "validation accuracy": reached["validation"],
            "macro F1": accuracy["classes"][arm]["macro_f1"],
            "recall of the worst class": accuracy["classes"][arm]["worst_class"]["recall"],
            "coverage": coverage and coverage["value"],
        }
        for arm, reached in accuracy["accuracy"].items()
    ]
    return pd.DataFrame(rows)

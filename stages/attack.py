"""Measure how well an attacker tells by the arms' answers which images they were trained on (LiRA;
CiP's threshold).
"""

import json

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.tables import write_table
from truelike.paths import HALVES, MEMBERSHIP, METRICS, SHADOWS
from truelike.privacy.lira import infer
from truelike.runtime.scratch import remove_stale


def main() -> None:
    privacy = load_params().privacy
    if privacy.shadows:
        remove_stale(SHADOWS, {str(number) for number in privacy.shadows})
    confidences = [
        pd.read_parquet(SHADOWS / str(number) / "confidences.parquet") for number in privacy.shadows
    ]
    halves = pd.read_parquet(HALVES)
    metrics, curves = infer(confidences, halves, privacy.bootstrap, privacy.seed)
    write_table(MEMBERSHIP, curves)
    file = METRICS / "privacy.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run("attack", main)

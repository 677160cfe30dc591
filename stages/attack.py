"""Measure how well an attacker tells by the arms' answers which images they were trained on (LiRA; CiP's threshold)."""

import json
from pathlib import Path

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.tables import write_table
from truelike.privacy.lira import infer
from truelike.runtime.scratch import remove_stale

PRIVACY = Path("outputs/privacy")


def main() -> None:
    privacy = load_params().privacy
    shadows = PRIVACY / "shadows"
    if privacy.shadows:
        remove_stale(shadows, {str(number) for number in privacy.shadows})
    confidences = [pd.read_parquet(shadows / str(number) / "confidences.parquet") for number in privacy.shadows]
    halves = pd.read_parquet(PRIVACY / "halves.parquet")
    metrics, curves = infer(confidences, halves, privacy.bootstrap, privacy.seed)
    write_table(Path("outputs/membership.parquet"), curves)
    file = Path("metrics/privacy.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run("attack", main)

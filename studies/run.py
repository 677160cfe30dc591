"""Runs studies as DVC experiments, one after the other: ``python -m studies.run real-fake scale``.

All runs of a study are made with one draw of the real images before the next draw. An experiment
that exists already is not run again; ``dvc exp remove NAME`` makes it run anew. What the runs have
in common comes from the run cache.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import product
from typing import Any

from studies import DRAWS, Study, experiment_name, load_studies
from truelike.config import load_params


def written(value: Any) -> str:
    """A value as `dvc exp run -S` takes it: JSON, but for the keys of mappings, which have no
    quotes.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def arguments(study: Study, run: str, draw: int, arms: list[str]) -> list[str]:
    """What follows `dvc exp run`: the run's settings, and of `arms` only the study's."""
    settings = [f"{name}={written(value)}" for name, value in study.overrides(run, draw).items()]
    settings += [f"~train.arms.{arm}" for arm in arms if arm not in study.arms]
    return [word for item in settings for word in ("-S", item)]


def main() -> None:
    studies, arms = load_studies(), list(load_params().train.arms)
    listed = subprocess.run(
        ["dvc", "exp", "list", "--name-only"], check=True, capture_output=True, text=True
    )
    for name in sys.argv[1:] or studies:
        for draw, run in product(DRAWS, studies[name].runs):
            experiment = experiment_name(name, run, draw)
            if experiment in listed.stdout.split():
                continue
            words = ["--temp", "--name", experiment, *arguments(studies[name], run, draw, arms)]
            print(f"{name}: {run}, draw {draw}: dvc exp run {' '.join(words)}", flush=True)
            subprocess.run(["dvc", "exp", "run", *words], check=True)


if __name__ == "__main__":
    main()

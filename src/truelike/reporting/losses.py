"""The losses of everything that was trained, from the stages' logs."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def read_losses(trainings: Iterable[tuple[str, str, Path]]) -> pd.DataFrame:
    """Losses by step, a row per kind, run and step: the mean over seeds, or over classes' adapters.

    `trainings` are a kind, a name and a directory with ``log.csv`` files, columns step and loss.
    """
    tables = [pd.DataFrame(columns=["step", "loss", "kind", "run"])]
    for kind, name, folder in trainings:
        logs = [pd.read_csv(file) for file in sorted(folder.rglob("log.csv"))]
        if logs and len(table := pd.concat(logs)):
            loss = table.groupby("step")["loss"].mean().reset_index()
            tables.append(loss.assign(kind=kind, run=name))
    return pd.concat(tables[1:] or tables, ignore_index=True)

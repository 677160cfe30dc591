"""What each stage cost: a line of csv per run, beside the pipeline's outputs and not one of them."""

import csv
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from truelike.scratch import scratch_root

FIELDS = ("finished", "stage", "seconds", "peak_memory_mib", "cpus")


def ledger_file() -> Path:
    """The csv file, in the scratch folder: costs differ from run to run, so they are no stage's output."""
    return scratch_root() / "ledger.csv"


@contextmanager
def record(stage: str) -> Iterator[None]:
    """Append `stage`'s wall-clock seconds and peak resident memory (MiB) to the ledger when the block succeeds."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = (datetime.now(UTC).isoformat(timespec="seconds"), stage, f"{seconds:.2f}", f"{peak:.0f}", os.cpu_count())
    path = ledger_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow(row)


def latest_costs() -> pd.DataFrame:
    """The latest run of each stage, in the order they finished: the columns of FIELDS, no rows without a ledger."""
    if not ledger_file().exists():
        return pd.DataFrame(columns=FIELDS)
    return pd.read_csv(ledger_file()).drop_duplicates("stage", keep="last").sort_values("finished", kind="stable")

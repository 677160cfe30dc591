"""Where the time of the last whole `dvc repro` went, by its ledger: ``python -m
benchmarks.demo``.
"""

import json
from pathlib import Path

import pandas as pd

from benchmarks import write

LEDGER = Path(".work/ledger.jsonl")


def spent(ledger: pd.DataFrame) -> pd.DataFrame:
    """Seconds by stage, from the last `prepare` on: `runs`, `inside` the stages, `between` one and
    the next.

    `ledger` has `stage` (``train@real``), `finished` and `seconds`, a row per run in their order.
    Between are the starts of Python and its libraries, and DVC, which hashes outputs; before the
    first stage they are not known.
    """
    last = ledger.index[ledger["stage"] == "prepare"][-1]
    rows = ledger.loc[last:].assign(
        stage=lambda table: table["stage"].str.split("@").str[0], runs=1
    )
    finished = pd.to_datetime(rows["finished"])
    rows["between"] = (finished.diff().dt.total_seconds() - rows["seconds"]).fillna(0.0)
    return (
        rows.rename(columns={"seconds": "inside"})
        .groupby("stage", sort=False)[["runs", "inside", "between"]]
        .sum()
    )


def main() -> None:
    found = spent(pd.DataFrame(map(json.loads, LEDGER.read_text(encoding="utf-8").splitlines())))
    found.loc["**all**"] = found.sum()
    lines = ["| stage | runs | seconds inside | seconds between |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(f'{value:.0f}' for value in row)} |"
        for name, row in found.iterrows()
    ]
    write("demo", lines)


if __name__ == "__main__":
    main()

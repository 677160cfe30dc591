"""Which stage of how many is starting, and how long the rest took last time."""

import json

import pytest

from truelike.runtime.outlook import outlook

GRAPH = {  # stage: what it reads, what it writes
    "prepare": (["data"], ["outputs/real/train", "outputs/real/test"]),
    "embed": (["outputs/real/train"], ["outputs/features.parquet"]),
    "naive@0": (["outputs/real/train"], ["outputs/naive/0"]),
    "naive@1": (["outputs/real/train"], ["outputs/naive/1"]),
    "select": (["outputs/naive", "outputs/features.parquet"], ["outputs/selection"]),
    "report": (["outputs/selection", "outputs/real/test"], ["reports"]),
}
RUN = [("prepare", 10), ("embed", 20), ("naive@0", 40), ("naive@1", 80), ("select", 5)]
WHOLE = [*RUN, ("report", 100)]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Write the ledger of the runs given; dvc.lock is as DVC writes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    lines = ["schema: '2.0'", "stages:"]
    for name, (deps, outs) in GRAPH.items():
        lines += [f"  {name}:", f"    cmd: python -m stages.{name}", "    deps:"]
        lines += [line for path in deps for line in (f"    - path: {path}", "      hash: md5")]
        lines += ["    params:", "      params.yaml:", "        embed:", "          path: no"]
        lines += ["    outs:"]
        lines += [line for path in outs for line in (f"    - path: {path}", "      size: 1")]
    (tmp_path / "dvc.lock").write_text("\n".join(lines))

    def write(*runs: tuple[str, float]) -> None:
        rows = [json.dumps({"stage": stage, "seconds": seconds}) for stage, seconds in runs]
        (tmp_path / ".work").mkdir(exist_ok=True)
        (tmp_path / ".work/ledger.jsonl").write_text("".join(f"{row}\n" for row in rows))

    return write


def test_a_whole_run_counts_every_stage(ran):
    ran(*WHOLE)
    found = []
    for number in range(len(WHOLE)):
        ran(*WHOLE, *WHOLE[:number])
        found.append(outlook(WHOLE[number][0]))
    assert found == [
        "prepare: stage 1 of up to 6, about 4 min left by the last run",
        "embed: stage 2 of up to 6, about 4 min left by the last run",
        "naive@0: stage 3 of up to 6, about 4 min left by the last run",
        "naive@1: stage 4 of up to 6, about 3 min left by the last run",
        "select: stage 5 of up to 6, about 2 min left by the last run",
        "report: stage 6 of up to 6, about 2 min left by the last run",
    ]


def test_a_change_in_the_middle_counts_what_follows_from_it(ran):
    ran(*WHOLE)
    assert outlook("embed") == "embed: stage 1 of up to 3, about 2 min left by the last run"
    ran(*WHOLE, ("naive@1", 80))
    assert outlook("naive@0").startswith("naive@0: stage 2 of up to 4,")
    assert outlook("report") == "report: stage 2 of up to 4, about 2 min left by the last run"


def test_a_killed_run_goes_on_counting(ran):
    ran(*WHOLE, *WHOLE[:2])
    assert outlook("naive@0").startswith("naive@0: stage 3 of up to 6,")


def test_a_line_that_a_full_disk_cut_is_passed_over(ran, tmp_path):
    ran(*WHOLE)
    with (tmp_path / ".work/ledger.jsonl").open("a") as ledger:
        ledger.write('{"stage": "pre')
    assert outlook("report") == "report: stage 1 of up to 1, about 2 min left by the last run"


def test_without_an_earlier_run_nothing_is_said(ran, tmp_path):
    assert outlook("prepare") == "prepare: stage 1 of up to 6"
    assert outlook("new") == ""
    (tmp_path / "dvc.lock").unlink()
    assert outlook("prepare") == ""

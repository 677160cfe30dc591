"""Experiments side by side, in a real DVC repository with the metrics and plots of the real
dvc.yaml.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.support.commands import ENVIRONMENT
from tests.support.report_material import run_of
from truelike.evaluation.verdict import Predictions
from truelike.reporting.compare import (
    Run,
    common_arm,
    compare_page,
    differing,
    paired_change,
    read_run,
)
from truelike.reporting.pooling import pool_draws
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
MAKE = """
import json
from pathlib import Path
from PIL import Image
from tests.support.report_material import accuracy_metrics, audit_metrics
from truelike.config import load_params
from truelike.reporting.summary import key_numbers

strength = load_params().synthesize.strength
accuracy = accuracy_metrics()
audit = audit_metrics({"real": 0.9, "naive": 0.35, "synthetic": strength})
accuracy["accuracy"]["synthetic"]["top1"] = 60 + 10 * strength
Path("metrics").mkdir(exist_ok=True)
summary = key_numbers(accuracy, audit, {"arms": {}})
for name, numbers in (("accuracy", accuracy), ("audit", audit), ("summary", summary)):
    Path(f"metrics/{name}.json").write_text(json.dumps(numbers))
Path("reports").mkdir(exist_ok=True)
for name in ("accuracy", "pictures"):
    Image.new("RGB", (8, 8), (round(255 * strength), 0, 0)).save(f"reports/{name}.png")
"""


def test_settings_differ_where_a_value_does_or_is_missing():
    runs = [run_of("a", x="1", y="2"), run_of("b", x="1", y="3"), run_of("c", x="1", z="0")]
    assert differing(runs) == {"y": ["2", "3", "–"], "z": ["–", "–", "0"]}


def test_a_page_of_runs_with_other_arms_and_hostile_names():
    first, second = run_of("<b>one</b>", x="1"), run_of("two", x="<i>2</i>")
    del (
        second.accuracy["accuracy"]["mixed"],
        second.accuracy["difference_to_real"]["mixed"],
        second.accuracy["ood"],
    )
    second.audit["measures"]["synthetic"]["vendi"] = None
    page = compare_page([first, second])
    assert "<b>one" not in page
    assert "<i>2" not in page
    row = page[page.index('<th scope="row">mixed</th>') :]
    cells = re.sub("</?span>", "", row[: row.index("</tr>")])
    assert re.search(r"74\.9 \(73\.8 to 75\.8\)</td><td [^>]*>–</td>$", cells)
    assert "--synthetic" in page
    assert "http" not in page.replace("http://www.w3.org/", "")


def predicted(hits: np.ndarray, keys: list[str]) -> Predictions:
    """Predictions of two classes, all images of class 0, that are right where `hits` is true."""
    probs = np.stack([hits, ~hits], axis=2).astype(np.float32)
    return Predictions(probs, np.zeros(len(keys), int), list(range(len(hits))), keys)


def test_runs_are_paired_by_seed_and_image_whatever_the_order():
    rng = np.random.default_rng(0)
    hits, keys = rng.random((6, 400)) < 0.5, [f"k{n}" for n in range(400)]
    better = hits | (rng.random((6, 400)) < 0.4)
    first = replace(run_of("a"), predictions={"mixed": predicted(hits, keys)})
    other = predicted(better[:, ::-1], keys[::-1])
    second = replace(run_of("b"), predictions={"mixed": other})
    change = paired_change(second, first, "mixed")
    assert change["points"] == pytest.approx(100 * (better.mean() - hits.mean()))
    assert 0 < change["low"] < change["points"] < change["high"]
    assert paired_change(second, first, "real") is None
    elsewhere = replace(second, predictions={"mixed": predicted(hits, [f"x{k}" for k in keys])})
    assert paired_change(elsewhere, first, "mixed") is None
    page = re.sub("</?span>", "", compare_page([first, second]))
    assert f"{change['points']:+.1f} ({change['low']:+.1f} to {change['high']:+.1f})" in page


def drawn(name: str, seed: int, gain: float, **settings: str) -> Run:
    run = run_of(name, **settings | {"data.seed": str(seed), "evaluate.confidence": "0.95"})
    run.accuracy["difference_to_real"]["bridged_pp"] |= {"points": gain}
    return run


def test_draws_of_the_data_are_pooled_with_a_t_interval():
    gains = [1.4, 1.3, -0.4, 0.8, 0.8, -0.2]
    runs = [drawn(f"draw{seed}", seed, gain) for seed, gain in enumerate(gains)]
    (pool,) = pool_draws([*runs, drawn("again", 0, 9.0), drawn("alone", 7, 9.0, x="other")])
    assert pool.seeds == ("0", "1", "2", "3", "4", "5")
    gain = pool.gains["bridged_pp"]
    assert gain.points == tuple(gains)
    # mean 0.617, standard deviation 0.755 over six draws, t of 5 degrees of freedom 2.571
    assert gain.mean.value == pytest.approx(0.6167, abs=1e-4)
    assert (gain.mean.low, gain.mean.high) == pytest.approx((-0.175, 1.409), abs=2e-3)
    page = re.sub("</?span>", "", compare_page(runs))
    assert "Over 6 draws of the data" in page
    assert "bridged_pp is +0.6 points [−0.2, +1.4]" in page
    assert pool_draws(runs[:1]) == []


def test_the_same_arm_is_compared_in_every_column():
    first, second = run_of("a"), run_of("b")
    second.accuracy["verdict"]["arm"] = "mixed"
    page = compare_page([first, second])
    assert "Accuracy of the arm bridged_pp in percent" in page
    row = re.search(r'<th scope="row">sketches</th>(.*?)</tr>', page)[1]
    assert re.findall(r">([\d.]+) <span>", row) == ["55.8", "55.8"]
    del second.accuracy["accuracy"]["bridged_pp"]
    assert common_arm([first, second]) == "real"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real dvc.yaml's report stage, metrics and plots over made-up numbers; two experiments,
    `low` and `high`.
    """
    project = tmp_path_factory.mktemp("project")
    real = read_yaml(ROOT / "dvc.yaml")
    stage = real["stages"]["report"]
    kept = [{f"metrics/{name}.json": {"cache": False}} for name in ("accuracy", "audit")]
    stage |= {
        "cmd": f"{sys.executable} make.py",
        "deps": ["make.py"],
        "outs": [*stage["outs"], *kept],
    }
    YAML().dump({"stages": {"report": stage}, "plots": real["plots"]}, project / "dvc.yaml")
    (project / "make.py").write_text(MAKE)
    shutil.copy(ROOT / "recipes/default.yaml", project / "params.yaml")
    for command in (
        "git init -q",
        "dvc init -q",
        "dvc config core.analytics false",
        "dvc repro -q",
        "git add .",
        "git commit -qm first",
        "dvc exp run -q --name low -S synthesize.strength=0.25",
        "dvc exp run -q --name high -S synthesize.strength=0.75",
    ):
        call(project, *command.split())
    return project


def call(project: Path, *command: str, ok: bool = True) -> str:
    environment = ENVIRONMENT | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout if ok else done.stderr


@pytest.mark.slow
def test_experiments_are_compared_by_name_revision_and_workspace(project):
    out = call(project, "truelike", "compare", "HEAD", "low", "high")
    assert "HEAD, low, high: .work/compare.html" in out
    page = (project / ".work/compare.html").read_text(encoding="utf-8")
    plain = re.sub("</?span>", "", page)
    rows = dict(re.findall(r'<tr><th scope="row">(?:<code>)?(.*?)<(.*?)</tr>', plain))
    assert [cell in rows["synthesize.strength"] for cell in (">0.9<", ">0.25<", ">0.75<")] == [
        True
    ] * 3
    assert "adapt.lr" not in page
    for cell in ("69.0 (", "62.5 (", "67.5 ("):
        assert cell in plain
    assert all(cell in rows["coverage ↑"] for cell in ("0.900 (", "0.250 (", "0.750 ("))
    call(
        project, "truelike", "compare", "low", "--out", "other.html"
    )  # beside the workspace, which `high` left
    assert "<h1>workspace, low</h1>" in (project / "other.html").read_text(encoding="utf-8")
    error = call(project, "truelike", "compare", "nothing", ok=False)
    assert "truelike: nothing: params.yaml cannot be read" in error


@pytest.mark.slow
def test_dvc_shows_and_compares_the_key_numbers_by_readable_names(project):
    shown = json.loads(call(project, "dvc", "metrics", "show", "--json"))[""]["data"][
        "metrics/summary.json"
    ]["data"]
    assert shown["gain"] == {"arm": "bridged_pp", "points": 2.7, "low": 1.9, "high": 3.4}
    assert shown["accuracy"]["synthetic"] == 67.5
    assert shown["synthetic"]["coverage"] == 0.75
    assert shown["ood"]["mean_corruption_error"] == 91.5
    changed = json.loads(call(project, "dvc", "metrics", "diff", "low", "high", "--json"))[
        "metrics/summary.json"
    ]
    assert changed["synthetic.coverage"] == {"old": 0.25, "new": 0.75, "diff": 0.5}
    assert changed["accuracy.synthetic"]["diff"] == 5.0
    table = call(project, "dvc", "exp", "show", "--csv", "--only-changed").splitlines()
    columns = table[0].split(",")
    assert {"accuracy.synthetic", "synthetic.coverage", "synthesize.strength"} <= set(columns)
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in table[1:]]
    by_strength = {row["synthesize.strength"]: row["accuracy.synthetic"] for row in rows}
    assert by_strength == {"0.9": "69.0", "0.25": "62.5", "0.75": "67.5"}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "pictures"), [(("show",), 2), (("diff", "low", "high"), 4)])
def test_dvc_plots_show_the_figure_and_the_pictures(project, command, pictures):
    out = call(project, "dvc", "plots", *command, "-o", "shown")
    page = (project / "shown/index.html").read_text(encoding="utf-8")
    assert "shown/index.html" in out
    for name in ("accuracy", "pictures"):
        assert page.count(f"reports/{name}.png") >= 1
    assert len(list((project / "shown/static").glob("*.png"))) >= pictures
    shutil.rmtree(project / "shown")


def test_a_run_without_a_result_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        TruelikeError, match=r"workspace: params\.yaml cannot be read.*only finished ones"
    ):
        read_run("workspace")

"""The studies behind docs/results.md: every run has valid settings, and the page says what the runs
found.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides

from studies import DRAWS, experiment_name, load_studies
from studies.figures import scale_figure, shots_figure
from studies.results import collect, load_results
from studies.run import arguments
from studies.write import DIFFERENCE, FIGURES, PAGE, accuracies, contrast, figure, page, table
from truelike.config import load_params
from truelike.reporting.pooling import t_interval
from truelike.runtime.errors import TruelikeError
from truelike.training.settings import Arm

ROOT = Path(__file__).resolve().parent.parent
STUDIES = load_studies()
RUNS = [(name, run) for name, study in STUDIES.items() for run in study.runs]


@pytest.mark.parametrize(("name", "run"), RUNS, ids=[experiment_name(*pair, 3) for pair in RUNS])
def test_a_run_changes_what_it_names_and_keeps_the_arms_of_its_study(
    name: str, run: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "recipes/default.yaml").read_bytes())
    words = arguments(STUDIES[name], run, 3, list(load_params(path).train.arms))
    apply_overrides(path, words[1::2])
    params = load_params(path)
    arms = [
        other for other in STUDIES[name].arms if f"+train.arms.{other}" not in not_in(name, run)
    ]
    assert sorted(params.train.arms) == sorted(arms)
    assert params.data.seed == 3
    for dotted, value in STUDIES[name].overrides(run, 3).items():
        found = params.model_dump(mode="json")
        for part in dotted.removeprefix("+").split("."):
            found = found[part]
        if dotted.startswith("+train.arms."):
            value = Arm.model_validate(value).model_dump(mode="json")
        assert found == value


def not_in(name: str, run: str) -> set[str]:
    """What other runs of a study change, and this one does not."""
    study = STUDIES[name]
    return {dotted for other in study.runs for dotted in study.overrides(other, 0)} - set(
        study.overrides(run, 0)
    )


def test_no_two_runs_have_the_same_experiment() -> None:
    names = [experiment_name(*pair, draw) for pair in RUNS for draw in DRAWS]
    assert len(set(names)) == len(names)


def run(draws: dict[int, dict[str, float]], **same: Any) -> pd.DataFrame:
    """A run in which arms reached these accuracies, by draw."""
    rows = [
        {
            "draw": draw,
            "commit": "a",
            "arm": arm,
            "accuracy": top1,
            "validation accuracy": top1 + 1,
            "macro F1": top1 - 1,
            "recall of the worst class": top1 / 2,
            "coverage": None,
            **same,
        }
        for draw, accuracies in draws.items()
        for arm, top1 in accuracies.items()
    ]
    return pd.DataFrame(rows)


def test_a_table_has_means_over_draws_with_t_intervals_and_is_longer_than_wide() -> None:
    """Real 70 and 72: the standard error 1 times t_0.975 = 12.706 at one degree of freedom; gains
    of -10 and -11 have half of it.
    """
    study = STUDIES["scale"].model_copy(update={"arms": ("real", "synthetic", "more_real")})
    rows = run({0: {"real": 70, "synthetic": 60}, 4: {"real": 72, "synthetic": 61}})
    runs = {"1x": rows.assign(coverage=rows["draw"].map({0: 0.98, 4: 0.96}))}
    assert list(table(study, runs, "accuracy")) == [
        "|  | `real` | `synthetic` | `more_real` | coverage |",
        "|---|---|---|---|---|",
        "| 1x (2 draws) | 71.0 [58.3, 83.7] | 60.5, -10.5 [-16.9, -4.1] |  | 0.97 |",
    ]
    turned = study.model_copy(update={"runs": {"1x": {}}})
    assert list(table(turned, runs, "validation accuracy")) == [
        "|  | 1x (2 draws) |",
        "|---|---|",
        "| `real` | 72.0 [59.3, 84.7] |",
        "| `synthetic` | 61.5, -10.5 [-16.9, -4.1] |",
        "| `more_real` |  |",
        "| coverage | 0.97 |",
    ]
    macro = list(table(turned, runs, "macro F1"))[2]
    worst = list(table(turned, runs, "recall of the worst class"))[2]
    assert (macro, worst) == ("| `real` | 70.0 [57.3, 82.7] |", "| `real` | 35.5 [29.1, 41.9] |")


def test_a_run_is_compared_with_the_run_that_it_stands_against_draw_by_draw() -> None:
    """Gains of 2, 4 and 6 in the draws that both runs have: the standard error 1.155 times
    t_0.975 = 4.303 at two degrees of freedom.
    """
    study = STUDIES["scale"].model_copy(update={"arms": ("real",), "against": {"2x": "1x"}})
    runs = {
        "1x": run({draw: {"real": 60 + draw} for draw in range(3)}),
        "2x": run({draw: {"real": 62 + 3 * draw} for draw in range(4)}),
    }
    first, second = list(table(study, runs, "accuracy"))[2:]
    assert first == "| 1x (3 draws) | 61.0 [58.5, 63.5] |"
    assert second == "| 2x, to *1x* (4 draws) | 66.5, +4.0 [-1.0, +9.0] |"


def test_the_page_has_studies_of_two_draws_or_more() -> None:
    demo = run({0: {"real": 70, "mixed": 71}, 3: {"real": 71, "mixed": 72}})
    fast = run({0: {"real": 70, "mixed": 70}})
    results = pd.concat([demo.assign(run="demo"), fast.assign(run="fast")]).assign(study="fast")
    kept = f"# Results\n\n## {STUDIES['digits'].title}\nKept: +1.0\n\n| 70.0, +1.0 [+0.5, +1.5] |\n"
    text = page(results, (), f"{kept}\n## {STUDIES['fast'].title}\nOutdated.\n")
    assert f"## {STUDIES['digits'].title}\nKept: +1.0\n\n| 70.0, +1.0 [+0.5, +1.5] |\n\n" in text
    assert "Outdated" not in text
    assert "The page shows 2 differences" in text
    assert "| `mixed` | 71.5, +1.0 [+1.0, +1.0] |" in text
    assert "| demo (2 draws) |" in text
    assert "`fast`, from commit a. Not run: fast." in text
    waiting = text.split("## Not run yet")[1]
    assert [name for name in STUDIES if f"`{name}`" not in waiting] == ["digits", "fast"]
    assert list(accuracies(results, "real-count")["run"]) == []
    reach = t_interval([70, 71], 0.95)
    assert accuracies(results, "fast").iloc[0].tolist() == [
        "demo",
        "real",
        70.5,
        reach.low,
        reach.high,
    ]
    results.loc[results["draw"] == 3, "commit"] = "b"
    with pytest.raises(
        TruelikeError, match=r"study fast: its experiments started from 2 commits \(a, b\)"
    ):
        page(results, (), "")


def test_the_table_takes_the_newest_experiment_and_keeps_what_other_repositories_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pd.concat(
        [
            run({0: {"real": 70}}).assign(study="fast", run="demo"),
            run({1: {"real": 71}}).assign(study="fast", run="demo"),
            run({0: {"real": 72}}).assign(study="fast", run="no longer planned"),
        ]
    )
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
    for top1 in (73.5, 74.5):
        metrics = {
            "accuracy": {"real": {"top1": top1, "validation": 75.0}},
            "classes": {"real": {"macro_f1": 72.0, "worst_class": {"recall": 40.0}}},
        }
        audit = {"measures": {"synthetic": {"coverage": {"value": 0.5}}}}
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / "metrics/accuracy.json").write_text(json.dumps(metrics), encoding="utf-8")
        (tmp_path / "metrics/audit.json").write_text(json.dumps(audit), encoding="utf-8")
        subprocess.run(["git", "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"{top1}"], check=True)
        ref = f"refs/exps/{int(top1)}/{'c' * 38}/{experiment_name('fast', 'demo', 0)}"
        subprocess.run(["git", "update-ref", ref, "HEAD"], check=True)
    found = collect(known)
    assert found[["run", "draw", "accuracy"]].to_numpy().tolist() == [
        ["demo", 0, 74.5],
        ["demo", 1, 71.0],
    ]
    first = found.iloc[0]
    assert first["commit"] == "74cccccccc"
    assert first["recall of the worst class"] == 40.0
    assert first["coverage"] == 0.5


def test_the_page_and_its_figures_are_those_of_the_table() -> None:
    results = load_results()
    figures = [name for name in FIGURES if figure(results, name)]
    written = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page(results, figures, written) == written
    assert all((ROOT / f"docs/images/{name}.png").exists() for name in figures)


def test_a_contrast_is_taken_draw_by_draw() -> None:
    """Differences of 2 and 4: the standard error 1, t_0.975 = 12.706 at one degree of freedom."""
    first = run({0: {"real": 70, "mixed": 72}, 1: {"real": 71, "mixed": 75}})
    line = contrast({"1x": first}, ("1x", "mixed"), ("1x", "real"))
    assert line == "- `mixed` (1x) to `real` (1x), +3.0 [-9.7, +15.7]"
    assert DIFFERENCE.search(line)


@pytest.mark.parametrize("name", STUDIES)
def test_a_contrast_is_of_runs_and_arms_of_its_study(name: str) -> None:
    study = STUDIES[name]
    sides = [side for pair in study.contrasts for side in pair]
    assert all(run in study.runs and arm in study.arms for run, arm in sides)


@pytest.mark.parametrize("name", STUDIES)
def test_a_run_stands_against_a_run_of_its_study(name: str) -> None:
    study = STUDIES[name]
    assert {run for pair in study.against.items() for run in pair} <= set(study.runs)


def test_the_figures_show_every_run() -> None:
    def accuracies(runs: list[str], arms: list[str]) -> pd.DataFrame:
        rows = [
            {"run": run, "arm": arm, "top1": 60.0, "low": 59.0, "high": 61.0}
            for run in runs
            for arm in arms
        ]
        return pd.DataFrame(rows)

    axes = scale_figure(
        accuracies(["1x", "10x"], ["real", "synthetic"]), accuracies(["1x", "6x"], ["real"])
    ).axes[0]
    assert {str(line.get_label()): list(line.get_xdata()) for line in axes.lines} == {
        "real": [1, 6],
        "synthetic": [1, 10],
    }
    runs = ["16, scratch", "4, scratch", "4, pretrained"]
    scratch, pretrained = shots_figure(
        accuracies(runs, ["real", "mixed", "synthetic", "bridged_pp"])
    ).axes
    assert [list(line.get_xdata()) for line in scratch.lines] == [[4, 16]] * 4
    assert [list(line.get_xdata()) for line in pretrained.lines] == [[4]] * 4

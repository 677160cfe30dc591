"""The studies behind docs/results.md: every run has valid settings, and the page says what the runs
found.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides

from studies import experiment_name, load_studies
from studies.figures import scale_figure, shots_figure
from studies.run import arguments
from studies.write import Result, table
from truelike.config import load_params
from truelike.training.settings import Arm

ROOT = Path(__file__).resolve().parent.parent
STUDIES = load_studies()
RUNS = [(name, run) for name, study in STUDIES.items() for run in study.runs]


@pytest.mark.parametrize(("name", "run"), RUNS, ids=[experiment_name(*pair) for pair in RUNS])
def test_a_run_changes_what_it_names_and_keeps_the_arms_of_its_study(
    name: str, run: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "recipes/default.yaml").read_bytes())
    words = arguments(STUDIES[name], run, list(load_params(path).train.arms))
    apply_overrides(path, words[1::2])
    params = load_params(path)
    arms = [
        other for other in STUDIES[name].arms if f"+train.arms.{other}" not in not_in(name, run)
    ]
    assert sorted(params.train.arms) == sorted(arms)
    for dotted, value in STUDIES[name].overrides(run).items():
        found = params.model_dump(mode="json")
        for part in dotted.removeprefix("+").split("."):
            found = found[part]
        assert found == (
            Arm.model_validate(value).model_dump(mode="json") if dotted.startswith("+") else value
        )


def not_in(name: str, run: str) -> set[str]:
    """What other runs of a study change, and this one does not."""
    study = STUDIES[name]
    return {dotted for other in study.runs for dotted in study.overrides(other)} - set(
        study.overrides(run)
    )


def test_no_two_runs_have_the_same_experiment() -> None:
    assert len({experiment_name(*pair) for pair in RUNS}) == len(RUNS)


def test_a_table_has_the_runs_that_were_made_and_is_longer_than_wide() -> None:
    study = STUDIES["scale"].model_copy(update={"arms": ("real", "synthetic", "more_real")})
    row = {"top1": 70.04, "low": 69.0, "high": 71.0}
    gain = {"synthetic": {"points": -10.04, "low": -12.0, "high": -8.16}}
    accuracy = {
        "accuracy": {"real": row, "synthetic": row | {"top1": 60.0}},
        "difference_to_real": gain,
    }
    audit = json.loads('{"measures": {"synthetic": {"coverage": {"value": 0.981}}}}')
    found = {"1x": Result(accuracy, audit, lambda arm: pd.DataFrame())}
    settings = load_params(ROOT / "recipes/default.yaml").evaluate
    assert list(table(study, found, settings)) == [
        "|  | `real` | `synthetic` | `more_real` | coverage |",
        "|---|---|---|---|---|",
        "| 1x | 70.0 [69.0, 71.0] | 60.0, -10.0 [-12.0, -8.2] |  | 0.98 |",
    ]
    turned = study.model_copy(update={"runs": {"1x": {}}})
    assert list(table(turned, found, settings)) == [
        "|  | 1x |",
        "|---|---|",
        "| `real` | 70.0 [69.0, 71.0] |",
        "| `synthetic` | 60.0, -10.0 [-12.0, -8.2] |",
        "| `more_real` |  |",
        "| coverage | 0.98 |",
    ]


def test_a_run_is_compared_with_the_run_that_it_stands_against() -> None:
    """One seed, four images, right on all of them against right on half: the differences 0, 0, 100
    and 100 have the standard error 28.87, times t_0.975 = 3.182 at three degrees of freedom.
    """
    study = STUDIES["scale"].model_copy(update={"arms": ("synthetic",), "against": {"2x": "1x"}})
    audit: dict = {"measures": {"synthetic": {"coverage": None}}}

    def result(right: int) -> Result:
        probs = [[0.9, 0.1]] * right + [[0.1, 0.9]] * (4 - right)
        rows = {"split": "test", "seed": 0, "key": list("abcd"), "label": 0, "probs": probs}
        accuracy = {"synthetic": {"top1": 25.0 * right}}
        gain = {"synthetic": {"points": -1.0, "low": -2.0, "high": 0.0}}
        return Result(
            {"accuracy": accuracy, "difference_to_real": gain},
            audit,
            lambda arm: pd.DataFrame(rows),
        )

    first, second = list(
        table(
            study,
            {"1x": result(2), "2x": result(4)},
            load_params(ROOT / "recipes/default.yaml").evaluate,
        )
    )[2:]
    assert first == "| 1x | 50.0, -1.0 [-2.0, +0.0] |  |"
    assert second == "| 2x, to *1x* | 100.0, +50.0 [-41.9, +141.9] |  |"


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

"""The studies behind docs/results.md: every run has valid settings, and the page says what the runs found."""

import json
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from studies import experiment_name, load_studies
from studies.run import arguments
from studies.write import table
from truelike.config import Arm, load_params

ROOT = Path(__file__).resolve().parent.parent
STUDIES = load_studies()
RUNS = [(name, run) for name, study in STUDIES.items() for run in study.runs]


@pytest.mark.parametrize(("name", "run"), RUNS, ids=[experiment_name(*pair) for pair in RUNS])
def test_a_run_changes_what_it_names_and_keeps_the_arms_of_its_study(name: str, run: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    words = arguments(STUDIES[name], run, list(load_params(path).train.arms))
    apply_overrides(path, words[1::2])
    params = load_params(path)
    arms = [other for other in STUDIES[name].arms if f"+train.arms.{other}" not in not_in(name, run)]
    assert sorted(params.train.arms) == sorted(arms)
    for dotted, value in STUDIES[name].overrides(run).items():
        found = params.model_dump(mode="json")
        for part in dotted.removeprefix("+").split("."):
            found = found[part]
        assert found == (Arm.model_validate(value).model_dump(mode="json") if dotted.startswith("+") else value)


def not_in(name: str, run: str) -> set[str]:
    """What other runs of a study change, and this one does not."""
    study = STUDIES[name]
    return {dotted for other in study.runs for dotted in study.overrides(other)} - set(study.overrides(run))


def test_no_two_runs_have_the_same_experiment() -> None:
    assert len({experiment_name(*pair) for pair in RUNS}) == len(RUNS)


def test_a_table_has_the_runs_that_were_made_and_is_longer_than_wide() -> None:
    study = STUDIES["scale"].model_copy(update={"arms": ("real", "synthetic", "more_real")})
    row = {"top1": 70.04, "low": 69.0, "high": 71.0}
    gain = {"synthetic": {"points": -10.04, "low": -12.0, "high": -8.16}}
    accuracy = {"accuracy": {"real": row, "synthetic": row | {"top1": 60.0}}, "difference_to_real": gain}
    audit = json.loads('{"measures": {"synthetic": {"coverage": {"value": 0.981}}}}')
    assert list(table(study, {"1x": (accuracy, audit)})) == [
        "|  | `real` | `synthetic` | `more_real` | coverage |",
        "|---|---|---|---|---|",
        "| 1x | 70.0 [69.0, 71.0] | 60.0, -10.0 [-12.0, -8.2] |  | 0.98 |",
    ]
    turned = study.model_copy(update={"runs": {"1x": {}}})
    assert list(table(turned, {"1x": (accuracy, audit)})) == [
        "|  | 1x |",
        "|---|---|",
        "| `real` | 70.0 [69.0, 71.0] |",
        "| `synthetic` | 60.0, -10.0 [-12.0, -8.2] |",
        "| `more_real` |  |",
        "| coverage | 0.98 |",
    ]

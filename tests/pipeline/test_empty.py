"""Every value that docs/parameters.md calls none, off or empty runs to the end of the pipeline."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.tiny_project import MODELS, write_pictures_and_models
from truelike.runtime.processes import one_thread
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
REAL = {"real": {"partner": "extra", "phases": [{"on": "real"}]}}
SYNTHETIC = {"synthetic": {"partner": "synthetic", "phases": [{"on": "partner"}]}}
EMPTY: dict[str, dict[str, Any]] = {
    "data": {"source": "pictures", "resolution": 16, "shots": 8},
    "models": MODELS,
    "corrupt": {"images_per_class": 0},
    "caption": {"by": "none"},
    "invert": {"enabled": False},
    "adapt": {"enabled": False},
    "naive": {"steps": 1},
    "synthesize": {"steps": 2, "replicas": [3]},
    "select": {"sets": []},
    "train": {"steps": 2, "batch_size": 2, "seeds": [5], "arms": REAL},
    "evaluate": {"bootstrap": 100},
    "audit": {"bootstrap": 100, "neighbours": 2},
    "privacy": {"arms": []},
    "report": {"waterfall": []},
}
STAGES = """prepare corrupt caption embed invert adapt allocate naive@3 synthesize@3 select
train@real train@synthetic evaluate audit halves attack report"""


def run_pipeline(project: Path, changes: dict[str, dict[str, Any]]) -> None:
    """Run every stage in this process, with what EMPTY and `changes` set."""
    settings = read_yaml(ROOT / "recipes/default.yaml") | {"ood": {}}
    for section in EMPTY:
        settings[section].update(EMPTY[section] | changes.get(section, {}))
    with (project / "params.yaml").open("w") as file:
        YAML().dump(settings, file)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(project), one_thread():
        patch.delenv("DVC_ROOT", raising=False)
        for name in STAGES.split():
            stage, _, instance = name.partition("@")
            if stage != "train" or instance in settings["train"]["arms"]:
                patch.setattr(sys, "argv", [stage, *filter(None, [instance])])
                importlib.import_module(f"stages.{stage}").main()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="no corrupted image, no arm but real"),
        pytest.param(
            {
                "corrupt": {"images_per_class": 2, "kinds": []},
                "data": {"shots": None},
                "train": {"arms": REAL | SYNTHETIC},
            },
            id="no kind of corruption, no extra image",
        ),
    ],
)
def test_empty_values_run_to_the_end(changes, tmp_path):
    write_pictures_and_models(tmp_path)
    run_pipeline(tmp_path, changes)
    assert "</html>" in (tmp_path / "reports/report.html").read_text()

"""The experiments behind docs/results.md."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from truelike.runtime.yaml import read_yaml

PLAN = Path(__file__).parent / "plan.yaml"
DRAWS = range(5)  # of the real images, `data.seed`: every run is made with each
TRAINING_SEEDS = [0, 1]

Measure = Literal["accuracy", "validation accuracy", "macro F1", "recall of the worst class"]


class Study(BaseModel):
    """Runs that are compared with each other: each a name and the parameters in which it differs
    from params.yaml.

    `text` is what is compared, `finding` what came of it, `measures` what a table each shows. A run
    named in `against` is compared with the run it stands there with, arm by arm; any other run with
    its own arm `real`. `contrasts` are more differences, each of two pairs of a run and an arm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    text: str
    finding: str = ""
    arms: tuple[str, ...]
    measures: tuple[Measure, ...] = ("accuracy",)
    common: Mapping[str, Any] = {}
    runs: Mapping[str, Mapping[str, Any]]
    against: Mapping[str, str] = {}
    contrasts: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = ()

    def overrides(self, run: str, draw: int) -> dict[str, Any]:
        """The parameters of a run on a draw of the real images, by dotted name."""
        every = {"data.seed": draw, "train.seeds": TRAINING_SEEDS}
        return {**every, **self.common, **self.runs[run]}


def load_studies(path: Path = PLAN) -> dict[str, Study]:
    """The studies of the plan by name."""
    return {name: Study.model_validate(study) for name, study in read_yaml(path).items()}


def experiment_name(study: str, run: str, draw: int) -> str:
    """The name of a run's DVC experiment, such as ``real-fake-without-prior-draw-0``."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{study} {run} draw {draw}").strip("-")

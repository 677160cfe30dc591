"""The experiments behind docs/results.md."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from truelike.runtime.yaml import read_yaml

PLAN = Path(__file__).parent / "plan.yaml"


class Study(BaseModel):
    """Runs that are compared with each other: each a name and the parameters in which it differs
    from params.yaml.

    `text` is what is compared, `finding` what came of it. The accuracies of a run named in
    `against` are compared with those of the run it stands there with; of any other run, with those
    of its own arm `real`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    text: str
    finding: str = ""
    arms: tuple[str, ...]
    common: Mapping[str, Any] = {}
    runs: Mapping[str, Mapping[str, Any]]
    against: Mapping[str, str] = {}

    def overrides(self, run: str) -> dict[str, Any]:
        """The parameters of a run by dotted name."""
        return {**self.common, **self.runs[run]}


def load_studies(path: Path = PLAN) -> dict[str, Study]:
    """The studies of the plan by name."""
    return {name: Study.model_validate(study) for name, study in read_yaml(path).items()}


def experiment_name(study: str, run: str) -> str:
    """The name of a run's DVC experiment, such as ``real-fake-without-prior``."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{study} {run}").strip("-")

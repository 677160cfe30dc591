"""dvc.yaml declares for each stage the parameters that it reads: every stage runs once on tiny
models while each access to a setting is recorded.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support import tiny_models
from tests.support.tiny_project import MODELS, write_pictures_and_models
from truelike import config
from truelike.runtime.processes import one_thread
from truelike.runtime.settings import Section
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage.get("do", stage) for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items()
}
SHADOWS = [0, 1, 2, 3, 4, 5]
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"source": "pictures", "resolution": 16, "shots": 8},
    "models": MODELS | {"rewriter": "tiny/rewriter"},
    "visual_guidance": {"kind": "image"},
    "invert": {"steps": 1, "batch_size": 4, "initializer": "a"},
    "adapt": {"steps": 1, "batch_size": 4},
    "naive": {"steps": 1},
    "synthesize": {
        "steps": 2,
        "replicas": [0],
        "allocation": "uncertain",
        "judge": {"folds": 2, "steps": 1},
    },
    "partial": {"content": {"without": ["style", "adapter"]}},
    "rounds": {
        "first": {
            "after": "real",
            "adds_to": "synthetic",
            "replica": 7,
            "allocation": "uncertain",
            "criterion": "loss",
        }
    },
    "select": {"classifier_steps": 1, "min_class_probability": 0.0},
    "train": {
        "steps": 2,
        "batch_size": 4,
        "seeds": [0, 1],
        "keep": "all",
        "arms": {
            "real": {"partner": "extra", "phases": [{"on": "real"}]},
            "synthetic": {"partner": "synthetic", "phases": [{"on": "partner"}]},
        },
    },
    "evaluate": {"bootstrap": 100},
    "audit": {"bootstrap": 100, "neighbours": 2},
    "privacy": {"shadows": SHADOWS, "arms": ["real", "synthetic"], "bootstrap": 100},
}
OOD = {"other": {"source": "pictures"}}
SECTIONS = {"partial": "partial", "round": "rounds", "ood": "ood", "train": "train.arms"}
INSTANCES = {  # of the stages that DVC makes several of: what follows the module's name
    "naive": ["0"],
    "synthesize": ["0"],
    "partial": ["content"],
    "round": ["first"],
    "ood": ["other"],
    "train": ["real", "synthetic"],
    "shadow": [str(number) for number in SHADOWS],
}


class Recorder:
    """Which settings are read, by dotted name; also in forked processes, which append to a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.names: dict[int, str] = {}  # by the id of a section
        self.kept: list[Section] = []  # so that no other object gets its id

    def follow(self, value: Any, name: str) -> None:
        if isinstance(value, Section):
            self.names[id(value)] = name
            self.kept.append(value)
            for field, item in object.__getattribute__(value, "__dict__").items():
                self.follow(item, f"{name}.{field}".lstrip("."))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.follow(item, f"{name}.{key}")

    def note(self, section: Section, fields: Iterable[str]) -> None:
        name = self.names.get(id(section))
        if name is not None:
            with self.file.open("a") as file:
                file.writelines(f"{name}.{field}".lstrip(".") + "\n" for field in fields)

    def read(self) -> set[str]:
        """What was read since the last call, without the sections around it."""
        names = set(self.file.read_text().split()) if self.file.exists() else set()
        self.file.unlink(missing_ok=True)
        return {name for name in names if not any(o.startswith(f"{name}.") for o in names)}


@pytest.fixture(scope="module")
def parameters_read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The parameters that each stage reads, the entry of a stage of several as DVC's ``${key}``."""
    project = tmp_path_factory.mktemp("parameters")
    write_pictures_and_models(project)
    tiny_models.save_gpt2(project / "tiny/rewriter")
    settings = read_yaml(ROOT / "recipes/default.yaml") | {"ood": OOD}
    for section, values in SETTINGS.items():
        settings[section].update(values)
    settings["caption"]["rewrite"] |= {"count": 1, "max_tokens": 1}
    with (project / "params.yaml").open("w") as file:
        YAML().dump(settings, file)
    recorder = Recorder(project / "read.txt")
    found: dict[str, set[str]] = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(project), one_thread():
        patch.delenv("DVC_ROOT", raising=False)
        record(recorder, patch)
        for stage in STAGES:
            found[stage] = set()
            for instance in INSTANCES.get(stage, [""]):
                patch.setattr(sys, "argv", [stage, *filter(None, [instance])])
                importlib.import_module(f"stages.{stage}").main()
                section = SECTIONS.get(stage)
                found[stage] |= {
                    name.replace(f"{section}.{instance}", f"{section}.${{key}}")
                    for name in recorder.read()
                }
    return found


def record(recorder: Recorder, patch: pytest.MonkeyPatch) -> None:
    """Note every access to a field of the sections that come from params.yaml, and of their copies.

    What is dumped as a whole counts as read.
    """
    get, parse = Section.__getattribute__, config.parse_params
    copy, dump = Section.model_copy, Section.model_dump

    def getting(self: Section, name: str) -> Any:
        if name in type(self).model_fields:
            recorder.note(self, [name])
        return get(self, name)

    def copying(self: Section, *arguments: Any, **keywords: Any) -> Any:
        new = copy(self, *arguments, **keywords)
        if id(self) in recorder.names:
            recorder.follow(new, recorder.names[id(self)])
        return new

    def dumping(self: Section, *arguments: Any, **keywords: Any) -> Any:
        everything = dump(self, *arguments, **keywords)
        recorder.note(self, everything)
        return everything

    def parsing(*arguments: Any) -> config.Params:
        params = parse(*arguments)
        recorder.file.unlink(missing_ok=True)  # what validation read
        recorder.follow(params, "")
        return params

    patch.setattr(Section, "__getattribute__", getting)
    patch.setattr(Section, "model_copy", copying)
    patch.setattr(Section, "model_dump", dumping)
    patch.setattr(config, "parse_params", parsing)


def declared(stage: str) -> set[str]:
    return set(STAGES[stage]["params"])


def below(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_no_parameter_that_dvc_does_not_track(stage, parameters_read):
    undeclared = {
        name
        for name in parameters_read[stage]
        if not any(below(name, entry) or below(entry, name) for entry in declared(stage))
    }
    assert undeclared == set()


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_dvc_tracks_no_parameter_that_a_stage_does_not_read(stage, parameters_read):
    unread = {
        entry
        for entry in declared(stage)
        if not any(below(name, entry) or below(entry, name) for name in parameters_read[stage])
    }
    assert unread == set()

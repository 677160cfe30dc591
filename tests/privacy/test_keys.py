"""The keys of the scratch folders of all that works on the generator: each input changes them, and
what decides no byte does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from truelike.adaptation.inversion import style_key
from truelike.adaptation.lora import AdaptInputs, adapter_key
from truelike.config import Params, load_params
from truelike.generator.settings import VisualGuidance
from truelike.imageset.reading import INDEX_FILE
from truelike.privacy.shadows import Pipeline, shadow_key
from truelike.runtime.hub import Model
from truelike.synthesis.jobs import SynthesisJob, replica_job
from truelike.synthesis.run import replica_key

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("generator", "encoder", "classifier")
ACCELERATOR = "fast.safetensors"
TABLES = ("captions.parquet", "features.parquet")
LEARNED = ("style/style.json", "style/embeds", "adapter/adapter.json", "adapter/weights")
ALLOCATED = ("allocation/0.parquet", "allocation/1.parquet")
GUIDED = VisualGuidance(kind="class_kmeans", centroids=2)


@dataclass(frozen=True)
class Project:
    """A project whose files hold their names, and its parameters."""

    folder: Path
    params: Params

    def model(self, name: str, dtype: str = "float32") -> Model:
        accelerator = str(self.folder / ACCELERATOR) if name == "generator" else None
        return Model(str(self.folder / name), dtype, accelerator)

    def inputs(self) -> AdaptInputs:
        captions, features = (self.folder / name for name in TABLES)
        return AdaptInputs(self.folder / "real", captions, features, self.folder / "style")

    def style(self, dtype: str = "float32", **change: Any) -> str:
        settings = self.params.invert.model_copy(update=change)
        return style_key(settings, self.model("generator", dtype), self.folder / "real")

    def adapter(self, dtype: str = "float32", **change: Any) -> str:
        sections = {
            "settings": self.params.adapt,
            "prompts": self.params.prompts,
            "visual_guidance": self.params.visual_guidance,
        }
        generator = self.model("generator", dtype)
        return adapter_key(**sections | change, generator=generator, inputs=self.inputs())

    def job(self, **change: Any) -> SynthesisJob:
        job = replace(
            replica_job(self.params),
            generator=self.model("generator"),
            **vars(self.inputs()),
            adapter=self.folder / "adapter",
            allocation=self.folder / "allocation",
        )
        return replace(job, **change)

    def replica(self, number: int = 0, **change: Any) -> str:
        return replica_key(self.job(**change), number)

    def shadow(self, number: int = 0, members: tuple[str, ...] = ("a", "b"), **change: Any) -> str:
        sections = (
            "prompts",
            "visual_guidance",
            "invert",
            "adapt",
            "synthesize",
            "select",
            "train",
        )
        pipeline = Pipeline(
            **{name: getattr(self.params, name) for name in sections},
            arms=("real",),
            generator=self.model("generator"),
            encoder=self.model("encoder"),
            classifier=str(self.folder / "classifier"),
        )
        files = [self.folder / name for name in ("real", *TABLES)]
        return shadow_key(number, replace(pipeline, **change), members, *files)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    names = [f"{model}/weights" for model in MODELS] + [f"real/{INDEX_FILE}", *TABLES, *LEARNED]
    names += [*ALLOCATED, ACCELERATOR]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return Project(tmp_path, load_params(ROOT / "recipes/default.yaml"))


FILES: dict[str, tuple[Callable[[Project], str], set[str]]] = {
    "style": (Project.style, {"generator/weights", f"real/{INDEX_FILE}"}),
    "adapter": (
        Project.adapter,
        {"generator/weights", f"real/{INDEX_FILE}", *TABLES, *LEARNED[:2]},
    ),
    "replica": (
        Project.replica,
        {
            "generator/weights",
            ACCELERATOR,
            f"real/{INDEX_FILE}",
            *TABLES,
            *LEARNED,
            ALLOCATED[0],
        },
    ),
    "shadow": (
        Project.shadow,
        {*(f"{model}/weights" for model in MODELS), ACCELERATOR, f"real/{INDEX_FILE}", *TABLES},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_key_changes_with_each_file_that_is_read_and_with_no_other(
    project: Project, name: str
) -> None:
    key_of, read = FILES[name]
    before = key_of(project)
    for file in sorted(path for path in project.folder.rglob("*") if path.is_file()):
        text = file.read_text()
        file.write_text(text + "!")
        changed = key_of(project) != before
        file.write_text(text)
        assert changed == (file.relative_to(project.folder).as_posix() in read), file
    assert key_of(project) == before


def test_a_key_changes_with_each_setting(project: Project) -> None:
    params = project.params
    other_prompts = params.prompts.model_copy(update={"base": "one {class}"})
    keys = {
        "style": [project.style(dtype="bfloat16"), project.style(seed=7), project.style(steps=7)],
        "adapter": [
            project.adapter(dtype="bfloat16"),
            project.adapter(settings=params.adapt.model_copy(update={"rank": 7})),
            project.adapter(prompts=other_prompts),
            project.adapter(visual_guidance=GUIDED),
        ],
        "replica": [
            project.replica(1),
            project.replica(generator=project.model("generator", "bfloat16")),
            project.replica(settings=params.synthesize.model_copy(update={"strength": 0.5})),
            project.replica(prompts=other_prompts),
            project.replica(visual_guidance=GUIDED),
            project.replica(captions=None),
            project.replica(style=None, adapter=None),
        ],
        "shadow": [
            project.shadow(1),
            project.shadow(members=("a",)),
            project.shadow(encoder=project.model("encoder", "bfloat16")),
            project.shadow(arms=("real", "synthetic")),
            project.shadow(invert=params.invert.model_copy(update={"seed": 7})),
            project.shadow(train=params.train.model_copy(update={"steps": 7})),
        ],
    }
    for name, changed in keys.items():
        assert len({FILES[name][0](project), *changed}) == 1 + len(changed), name


def test_the_number_of_replicas_and_the_order_of_members_change_no_key(project: Project) -> None:
    more = project.params.synthesize.model_copy(update={"replicas": tuple(range(9))})
    assert project.replica(settings=more) == project.replica()
    assert project.shadow(members=("b", "a")) == project.shadow()

"""Which models were used, and what the reader should be warned about."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from truelike.config import Params
from truelike.runtime.yaml import read_yaml

DEMO_DATA = "data/fashion"
DEMO_GENERATOR = "models/generator"


@dataclass(frozen=True)
class ModelSource:
    """A model that params.yaml names: where it is from, whether that is pinned, (file, sha256) of
    local weights.

    `licence` says where to read it.
    """

    role: str
    path: str
    origin: str
    pinned: bool
    weights: tuple[tuple[str, str], ...]
    licence: str


def used_models(params: Params) -> dict[str, str]:
    """Role and path of each model that the settings open: a captioner and a rewriter only where
    they have work.
    """
    idle = {"dtype"}
    if params.caption.by == "none":
        idle.add("captioner")
    if not params.caption.rewrite.count:
        idle.add("rewriter")
    return params.models.model_dump(exclude=idle)


def model_sources(paths: dict[str, str]) -> list[ModelSource]:
    """Describe each model, `paths` mapping its role to a directory or a YAML pointer file; hashes
    all local weights.
    """
    return [_model_source(role, path) for role, path in paths.items()]


def _model_source(role: str, path: str) -> ModelSource:
    place = Path(path)
    if place.is_dir():
        files = sorted(place.rglob("*.safetensors"))
        weights = tuple((file.relative_to(place).as_posix(), _sha256(file)) for file in files)
        readme = next(
            (p / "README.md" for p in (place, place.parent) if (p / "README.md").is_file()), None
        )
        licence = f"see `{readme.as_posix()}`" if readme else "not stated with it"
        return ModelSource(role, path, "local directory", True, weights, licence)
    if place.suffix not in (".yaml", ".yml"):
        digest = _sha256(place)
        return ModelSource(
            role, path, "table of captions", True, ((place.name, digest),), "not stated with it"
        )
    pointer = read_yaml(place)
    if "package" in pointer:
        return ModelSource(
            role, path, f"package {pointer['package']}", True, (), "see the package's metadata"
        )
    name = pointer.get("hub") or f"timm: {pointer.get('timm')}"
    revision = pointer.get("revision")
    origin = f"{name} at {revision}" if revision else f"{name}, revision not pinned"
    hub = pointer.get("hub")
    licence = f"see https://huggingface.co/{hub}" if hub else "see its model card in timm"
    return ModelSource(role, path, origin, bool(revision), (), licence)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def warnings(params: Params, sources: list[ModelSource]) -> list[str]:
    """What a reader must know before believing the numbers, a sentence each."""
    found = []
    if params.models.generator.startswith(DEMO_GENERATOR) and Path(params.data.source) != Path(
        DEMO_DATA
    ):
        found.append(
            "The embedded models are a demonstration base: small networks trained on pictures of "
            "clothes. On other "
            "images they make poor pictures, and the verdict says little about what a real "
            "generator would do. Point "
            "models.generator at a full text-to-image model, for example with `truelike use`."
        )
    found += [
        f"models.{source.role} ({source.path}) is not pinned to a revision: the same settings may "
        "give another result "
        "when its owner changes it. Write the commit hash into the file."
        for source in sources
        if not source.pinned and (source.role != "classifier" or params.train.pretrained)
    ]
    if len(params.train.seeds) < 3:
        found.append(
            f"Only {len(params.train.seeds)} training seed(s): the intervals hardly know how much "
            "training varies."
        )
    return found

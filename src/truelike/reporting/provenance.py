"""Which models were used: where they are from, and the hashes of local weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from truelike.captioning.settings import Caption
from truelike.runtime.hub import names_nothing
from truelike.runtime.scratch import sha256
from truelike.runtime.yaml import read_yaml


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


def used_models(paths: Mapping[str, str], caption: Caption) -> dict[str, str]:
    """Those of the models (role and path) that the settings open: a captioner and a rewriter only
    where they have work, an accelerator only where one is named.
    """
    idle = set()
    if caption.by == "none":
        idle.add("captioner")
    if not caption.rewrite.count:
        idle.add("rewriter")
    if names_nothing(paths["accelerator"]):
        idle.add("accelerator")
    return {role: path for role, path in paths.items() if role not in idle}


def model_sources(paths: Mapping[str, str]) -> list[ModelSource]:
    """Describe each model, `paths` mapping its role to a directory or a YAML pointer file; hashes
    all local weights.
    """
    return [_model_source(role, path) for role, path in paths.items()]


def _model_source(role: str, path: str) -> ModelSource:
    place = Path(path)
    if place.is_dir():
        files = sorted(place.rglob("*.safetensors"))
        weights = tuple((file.relative_to(place).as_posix(), sha256(file)) for file in files)
        readme = next(
            (p / "README.md" for p in (place, place.parent) if (p / "README.md").is_file()), None
        )
        licence = f"see `{readme.as_posix()}`" if readme else "not stated with it"
        return ModelSource(role, path, "local directory", True, weights, licence)
    if place.suffix not in (".yaml", ".yml"):
        digest = sha256(place)
        kind = "local file" if place.suffix == ".safetensors" else "table of captions"
        return ModelSource(role, path, kind, True, ((place.name, digest),), "not stated with it")
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

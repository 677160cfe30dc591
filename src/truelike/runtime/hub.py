"""Where models come from: a directory in the hub's layout, or a YAML file that names a hub model
and its revision.
"""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

TIMEOUT = 5.0  # seconds until the hub counts as not reachable
PIPELINE = "model_index.json"  # the file that makes a directory a pipeline
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")  # all but weights, and no code


@dataclass(frozen=True)
class Model:
    """A model as the settings name it: a directory or a pointer file, and the torch type of its
    weights, such as ``bfloat16``.
    """

    path: str
    dtype: str


class HubModel(BaseModel):
    """The content of a pointer file: a hub name, a commit, and the weights' variant where there are
    several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    revision: str | None = None
    variant: str | None = None


def resolve(path: str | Path, marker: str = "config.json") -> Path:
    """The directory of the model that `path` stands for, downloaded first if `path` is a YAML
    pointer.

    `marker` is the file that makes a directory a model of the wanted kind (``model_index.json`` for
    a pipeline). Raises TruelikeError if there is no such model, or if the directory holds something
    else.
    """
    return _resolve(Path(path), marker, weights=True)


def resolve_configuration(path: str | Path, marker: str = "config.json") -> Path:
    """As `resolve`, but of a pointer only the small files are downloaded, not the weights."""
    return _resolve(Path(path), marker, weights=False)


def _resolve(path: Path, marker: str, weights: bool) -> Path:
    if path.is_dir():
        folder = path
    elif path.is_file():
        model = read_pointer(path)
        folder = _download(path, model, marker, weights)
    else:
        raise TruelikeError(
            f"{path}: no such model; give a directory in the hub's layout, "
            "or a YAML file with `hub: OWNER/NAME` and `revision: COMMIT`"
        )
    if not (folder / marker).is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise TruelikeError(
            f"{path}: not a model of the wanted kind: no {marker} in {folder}, found {found}"
        )
    return folder


def read_pointer(path: Path) -> HubModel:
    """Read a pointer file; raises TruelikeError for unknown or missing entries."""
    try:
        return HubModel.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TruelikeError(
            f"{path}: must hold hub, revision and (optional) variant: {problems}"
        ) from None


@cache
def unreachable() -> str:
    """Why the hub does not answer, empty if it does; then this process takes what is in the hub's
    cache, without the hub's own retries, which last half a minute.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # each version of the hub's library has its own kinds
        constants.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} cannot be reached ({error})"
    return ""


def why_not(error: Exception, name: str) -> str:
    """Why the download of a repository failed, and what to do, in one line."""
    if isinstance(error, GatedRepoError):
        return (
            f"it needs your consent: accept its terms at {constants.ENDPOINT}/{name}, then "
            "`hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private: check the name, or `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision: pin it to a commit that it has"
    if unreachable() and isinstance(error, LocalEntryNotFoundError):
        return (
            f"{unreachable()}, and the hub's cache on this machine does not hold it: run once with "
            "a network and without HF_HUB_OFFLINE, or give a directory"
        )
    return f"{error}; run again, files that are whole are kept"


def _download(path: Path, model: HubModel, marker: str, weights: bool) -> Path:
    if model.revision is None:
        print(
            f"{path}: no revision: {model.hub} may change under you; pin it to a commit",
            file=sys.stderr,
        )
    unreachable()
    try:
        if marker != PIPELINE:
            files = [*SMALL_FILES, *(_weights(model) if weights else ())]
            return _snapshot(model, files, ignore_patterns=["*/*"])
        folder = _snapshot(model, [*SMALL_FILES])
        return _download_pipeline(model) if weights else folder
    except Exception as error:  # the errors are those of whatever HTTP library the client uses
        where = f"{path}: cannot download {model.hub} at {model.revision or 'main'}"
        raise TruelikeError(f"{where}: {why_not(error, model.hub)}") from error


def _snapshot(model: HubModel, files: list[str], **options: Any) -> Path:
    folder = snapshot_download(model.hub, revision=model.revision, allow_patterns=files, **options)
    return Path(folder)


def _weights(model: HubModel) -> list[str]:
    """The names under which transformers and timm keep the safetensors of one variant."""
    stem = f"model.{model.variant}" if model.variant else "model"
    return [f"{stem}.safetensors", f"{stem}-?????-of-?????.safetensors"]


def _download_pipeline(model: HubModel) -> Path:
    """Fetch the parts that a pipeline opens, as diffusers selects them: repositories hold the same
    weights several times.
    """
    from diffusers import DiffusionPipeline

    folder = DiffusionPipeline.download(
        model.hub,
        revision=model.revision,
        variant=model.variant,
        use_safetensors=True,
        safety_checker=None,
    )
    return Path(folder)


def variant(path: str | Path) -> dict[str, str]:
    """The ``variant`` argument of ``from_pretrained`` for a pointer that names one, else
    nothing.
    """
    name = read_pointer(Path(path)).variant if Path(path).is_file() else None
    return {"variant": name} if name else {}


def model_type(folder: Path) -> str:
    """The ``model_type`` in a directory's config.json, or an empty string."""
    return str(json.loads((folder / "config.json").read_text()).get("model_type", ""))

"""Where models come from: a directory in the hub's layout, or a YAML file that names a hub model
and its revision.
"""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, get_session, hf_hub_download, snapshot_download
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
    weights, such as ``bfloat16``; for a generator also the file, or pointer to one, of the LoRA
    that accelerates it, and whether its denoiser is compiled.
    """

    path: str
    dtype: str
    accelerator: str | None = None
    compile: bool = False

    @property
    def arithmetic(self) -> str:
        """What decides how its sums are rounded, besides the machine."""
        return f"{self.dtype} compiled" if self.compile else self.dtype


class HubModel(BaseModel):
    """The content of a pointer file: a hub name, a commit, and the weights' variant where there are
    several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    revision: str | None = None
    variant: str | None = None


class HubFile(BaseModel):
    """The content of a pointer to one file of a repository: its name there, a commit, and the
    weight that it is used with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    file: str
    revision: str | None = None
    scale: float = 1.0


Entries = TypeVar("Entries", bound=BaseModel)


def names_nothing(path: str | Path) -> bool:
    """Whether `path` is a pointer file that is empty but for comments."""
    is_pointer = Path(path).suffix in (".yaml", ".yml") and Path(path).is_file()
    return is_pointer and read_yaml(path) is None


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
    return read_entries(path, HubModel, "hub, revision and (optional) variant")


def read_file_pointer(path: Path) -> HubFile:
    """Read a pointer to one file; raises TruelikeError for unknown or missing entries."""
    return read_entries(path, HubFile, "hub, file, revision and (optional) scale")


def read_entries(path: Path, kind: type[Entries], entries: str) -> Entries:
    """Read a YAML file that must hold some `entries`, as a model of its `kind`; raises
    TruelikeError.
    """
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TruelikeError(f"{path}: must hold {entries}: {problems}") from None


def find_file(path: Path) -> HubFile | None:
    """The pointer to a file of weights in a YAML file, or None for a safetensors file; raises
    TruelikeError if `path` is neither.
    """
    if path.suffix == ".safetensors" and path.is_file():
        return None
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return read_file_pointer(path)
    raise TruelikeError(
        f"{path}: no such file of weights; give a .safetensors file, or a YAML file with "
        "`hub: OWNER/NAME`, `file: NAME.safetensors` and `revision: COMMIT`"
    )


def resolve_file(path: str | Path) -> tuple[Path, float]:
    """The safetensors file that `path` is or, as a YAML pointer, stands for, which is downloaded
    first; and the weight to use it with. Raises TruelikeError if there is none.
    """
    path = Path(path)
    pointer = find_file(path)
    if pointer is None:
        return path, 1.0
    warn_unpinned(path, pointer.hub, pointer.revision)
    unreachable()
    try:
        file = hf_hub_download(pointer.hub, pointer.file, revision=pointer.revision)
    except Exception as error:  # as in `_download`
        raise _not_downloaded(path, pointer, error) from error
    return Path(file), pointer.scale


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
    warn_unpinned(path, model.hub, model.revision)
    unreachable()
    try:
        if marker != PIPELINE:
            files = [*SMALL_FILES, *(_weights(model) if weights else ())]
            return _snapshot(model, files, ignore_patterns=["*/*"])
        folder = _snapshot(model, [*SMALL_FILES])
        return _download_pipeline(model) if weights else folder
    except Exception as error:  # the errors are those of whatever HTTP library the client uses
        raise _not_downloaded(path, model, error) from error


def warn_unpinned(path: Path, hub: str, revision: str | None) -> None:
    """Say so where a pointer names no commit."""
    if revision is None:
        print(
            f"{path}: no revision: {hub} may change under you; pin it to a commit",
            file=sys.stderr,
        )


def _not_downloaded(path: Path, pointer: HubModel | HubFile, error: Exception) -> TruelikeError:
    where = f"{path}: cannot download {pointer.hub} at {pointer.revision or 'main'}"
    return TruelikeError(f"{where}: {why_not(error, pointer.hub)}")


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

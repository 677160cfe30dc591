"""Where models come from: a directory in the hub's layout, or a YAML file that names a hub model
and its revision.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict, ValidationError

from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

FILES = (
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.safetensors",
)  # weights without pickle, and no code


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
    path = Path(path)
    if path.is_dir():
        folder = path
    elif path.is_file():
        folder = _download(path, read_pointer(path))
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


def _download(path: Path, model: HubModel) -> Path:
    if model.revision is None:
        print(
            f"{path}: no revision: {model.hub} may change under you; pin it to a commit",
            file=sys.stderr,
        )
    files = [*FILES[:-1], f"*.{model.variant}.safetensors"] if model.variant else list(FILES)
    try:
        return Path(snapshot_download(model.hub, revision=model.revision, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TruelikeError(
            f"{path}: cannot download {model.hub} at {model.revision or 'main'}: {error}"
        ) from None


def variant(path: str | Path) -> dict[str, str]:
    """The ``variant`` argument of ``from_pretrained`` for a pointer that names one, else
    nothing.
    """
    name = read_pointer(Path(path)).variant if Path(path).is_file() else None
    return {"variant": name} if name else {}


def model_type(folder: Path) -> str:
    """The ``model_type`` in a directory's config.json, or an empty string."""
    return str(json.loads((folder / "config.json").read_text()).get("model_type", ""))

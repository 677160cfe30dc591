"""A source on the Hugging Face hub: the YAML pointer that names it, and the download of its parquet
files.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from truelike.runtime.errors import TruelikeError
from truelike.sources.settings import Reading

COLUMNS = ("config", "image_column", "label_column")


class HubData(BaseModel):
    """The content of a pointer file: a hub data set, its commit, configuration and columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    revision: str | None = None
    config: str | None = None
    image_column: str | None = None
    label_column: str | None = None


def download(path: Path, settings: Reading) -> tuple[Path, Reading]:
    """Download what a pointer file names; returns its folder, and the settings with what they leave
    to the pointer.

    Raises TruelikeError for a wrong pointer, a set that cannot be reached, or one without parquet
    files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from truelike.runtime.hub import read_entries, unreachable, warn_unpinned, why_not

    data = read_entries(path, HubData, f"hub, and may hold revision, {', '.join(COLUMNS)}")
    warn_unpinned(path, data.hub, data.revision)
    unreachable()
    try:
        folder = Path(
            snapshot_download(
                data.hub,
                repo_type="dataset",
                revision=data.revision,
                allow_patterns=["*.parquet", "**/*.parquet"],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        where = f"{path}: cannot download {data.hub} at {data.revision or 'main'}"
        raise TruelikeError(f"{where}: {why_not(error, f'datasets/{data.hub}')}") from None
    if not next(folder.rglob("*.parquet"), None):
        raise TruelikeError(
            f"{path}: {data.hub} has no parquet files; try `revision: refs/convert/parquet`"
        )
    return folder, settings.model_copy(
        update={name: getattr(data, name) for name in COLUMNS if getattr(settings, name) is None}
    )

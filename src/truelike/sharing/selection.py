"""Which images of a set selection kept: the table that the pipeline wrote beside it."""

from pathlib import Path

import numpy as np
import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.paths import OUTPUTS, selection_table


def selection_name(folder: Path) -> str | None:
    """The name of the selection table of the set in `folder`, such as ``synthetic`` for
    ``outputs/synthetic/0``; None outside of a project's outputs.
    """
    parts = folder.absolute().parts
    if OUTPUTS.name not in parts:
        return None
    below = parts[len(parts) - parts[::-1].index(OUTPUTS.name) :]
    return "/".join(below[:2] if below[:1] in (("partial",), ("rounds",)) else below[:1])


def read_selection(images: ImageSet) -> pd.DataFrame | None:
    """The selection table of a local set; None where there is none, so that nothing was dropped."""
    name = selection_name(images.folder)
    if name is None:
        return None
    parts = images.folder.absolute().parts
    project = Path(*parts[: len(parts) - 1 - parts[::-1].index(OUTPUTS.name)])
    file = project / selection_table(name)
    return pd.read_parquet(file) if file.is_file() else None


def selected_rows(
    images: ImageSet, selection: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the kept images of a set, and their labels, int64 (N,) each.

    The labels are those of the selection table, where ``select.relabel`` may have changed them. An
    image without a row there is kept. `selection` None keeps all.
    """
    if selection is None:
        return np.arange(len(images)), images.labels
    rows = selection.set_index("key").reindex(images.keys)
    kept = np.flatnonzero(rows["keep"].ne(False).to_numpy())
    labels = rows["label"].fillna(pd.Series(images.labels, rows.index)).to_numpy(np.int64)
    return kept, labels[kept]

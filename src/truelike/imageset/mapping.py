"""Applies a model to all images of a set, in parts that survive a kill."""

import inspect
import io
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.executor import Part, Progress, map_parts
from truelike.runtime.hub import Model, resolve
from truelike.runtime.scratch import scratch, scratch_key

BATCHES = 4  # of images in a part


def map_images(
    images: ImageSet,
    open_model: Callable[[Model], Any],
    model: Model,
    function: Callable[..., dict[str, np.ndarray]],
    batch_size: int,
    name: str,
    rows: pd.DataFrame | None = None,
    **settings: Any,
) -> dict[str, np.ndarray]:
    """``function(open_model(model), pixels, **settings)`` of all batches of an image set,
    joined by name.

    `function` takes uint8 (B, H, W, 3) and gives arrays of B rows each, without objects; it and
    `open_model` are found by their names in their modules. `rows`, a table of texts with the
    positions of images as its index, asks for these images alone; its columns are arguments of
    `function`, lists of B texts. Finished parts of a killed run are used again.
    """
    resolve(model.path)  # a model that is missing is named
    chosen = pd.DataFrame(index=range(len(images))) if rows is None else rows
    size = BATCHES * batch_size
    starts = range(0, len(chosen), size)
    works = [chosen.iloc[start : start + size] for start in starts]
    parts = [Part((f"{number:05d}.npz",), work, len(work)) for number, work in enumerate(works)]
    asked = None if rows is None else rows.reset_index().to_dict("list")
    made_by = [function.__qualname__, settings, model.dtype, batch_size, asked]
    key = scratch_key(inspect.getfile(function), made_by, model.path, images.folder / INDEX_FILE)
    with scratch(name, key) as folder:
        map_parts(
            parts,
            folder,
            partial(_open, images.folder, open_model, model),
            partial(_make_part, function=function, batch_size=batch_size, settings=settings),
            name,
        )
        made = [dict(np.load(folder / part.files[0])) for part in parts]
    return {column: np.concatenate([part[column] for part in made]) for column in made[0]}


def _open(folder: Path, open_model: Callable[[Model], Any], model: Model) -> tuple[Any, ImageSet]:
    return _opened(open_model, model), ImageSet(folder)


@lru_cache(maxsize=1)  # a stage that looks at several image sets opens its model once
def _opened(open_model: Callable[[Model], Any], model: Model) -> Any:
    return open_model(model)


def _make_part(
    opened: tuple[Any, ImageSet],
    rows: pd.DataFrame,
    progress: Progress,
    *,
    function: Callable[..., dict[str, np.ndarray]],
    batch_size: int,
    settings: dict[str, Any],
) -> list[bytes]:
    model, images = opened
    results = []
    for start in range(0, len(rows), batch_size):
        batch = rows.iloc[start : start + batch_size]
        pixels = images.load(batch.index)
        texts = {str(column): batch[column].tolist() for column in batch}
        results.append(function(model, pixels, **texts, **settings))
        progress(len(pixels))
    buffer = io.BytesIO()
    joined = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    np.savez(buffer, **joined)  # type: ignore[arg-type]
    return [buffer.getvalue()]

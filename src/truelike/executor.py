"""Maps a function over the parts of a stage's work and keeps every finished part in the scratch folder."""

import inspect
import io
import platform
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from tqdm import tqdm

import truelike
from truelike.data.imageset import INDEX_FILE, ImageSet
from truelike.models.source import device, resolve
from truelike.scratch import fingerprint, finished, scratch, write_finished

BATCHES = 4  # of images in a part
Progress = Callable[[int], object]


class Part(NamedTuple):
    """Work that is done at once: the files it ends as, what the function is told of it, how many items it covers."""

    files: tuple[str, ...]
    work: Any
    size: int


def map_parts(
    parts: Sequence[Part],
    folder: Path,
    open_model: Callable[[], Any],
    make: Callable[[Any, Any, Progress], list[bytes]],
    name: str,
    unit: str = "image",
) -> int:
    """Make the files of every part that are not finished in `folder`; returns the number of items this took.

    ``make(open_model(), part.work, progress)`` returns the contents of the part's files and depends on nothing else;
    it calls `progress` with the number of items that are done since. The model is opened only if a part is missing.
    """
    missing = [part for part in parts if not all(finished(folder / file) for file in part.files)]
    total, left = (sum(part.size for part in some) for some in (parts, missing))
    if missing:
        with tqdm(desc=name, total=total, initial=total - left, unit=unit) as bar:
            for part, contents in _in_process(missing, open_model, make, bar.update):
                for file, content in zip(part.files, contents, strict=True):
                    write_finished(folder / file, partial(_write, content))
    return left


def _in_process(
    parts: Sequence[Part],
    open_model: Callable[[], Any],
    make: Callable[[Any, Any, Progress], list[bytes]],
    progress: Progress,
) -> Iterator[tuple[Part, list[bytes]]]:
    model = open_model()
    for part in parts:
        yield part, make(model, part.work, progress)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def map_images(
    images: ImageSet,
    open_model: Callable[[str, str], Any],
    model: str,
    dtype: str,
    function: Callable[..., dict[str, np.ndarray]],
    batch_size: int,
    name: str,
    **settings: Any,
) -> dict[str, np.ndarray]:
    """``function(open_model(model, dtype), pixels, **settings)`` of all batches of an image set, joined by name.

    `function` takes uint8 (B, H, W, 3) and gives arrays of B rows each, without objects; it and `open_model` are found
    by their names in their modules. Finished parts of a killed run are used again.
    """
    resolve(model)  # a model that is missing is named
    size = BATCHES * batch_size
    starts = range(0, len(images), size)
    parts = [
        Part((f"{number:05d}.npz",), range(start, min(start + size, len(images))), min(size, len(images) - start))
        for number, start in enumerate(starts)
    ]
    library = Path(truelike.__file__).parent
    code = [library / "data", library / "models", Path(inspect.getfile(function)).parent]
    versions = [torch.__version__, transformers.__version__, device().type, platform.machine()]
    key = fingerprint(
        [function.__qualname__, settings, dtype, batch_size, versions], model, images.folder / INDEX_FILE, *code
    )
    with scratch(name, key) as folder:
        map_parts(
            parts,
            folder,
            partial(_open, images.folder, open_model, model, dtype),
            partial(_make_part, function=function, batch_size=batch_size, settings=settings),
            name,
        )
        made = [dict(np.load(folder / part.files[0])) for part in parts]
    return {column: np.concatenate([part[column] for part in made]) for column in made[0]}


def _open(folder: Path, open_model: Callable[[str, str], Any], model: str, dtype: str) -> tuple[Any, ImageSet]:
    return _opened(open_model, model, dtype), ImageSet(folder)


@lru_cache(maxsize=1)  # a stage that looks at several image sets opens its model once
def _opened(open_model: Callable[[str, str], Any], model: str, dtype: str) -> Any:
    return open_model(model, dtype)


def _make_part(
    opened: tuple[Any, ImageSet],
    positions: range,
    progress: Progress,
    *,
    function: Callable[..., dict[str, np.ndarray]],
    batch_size: int,
    settings: dict[str, Any],
) -> list[bytes]:
    model, images = opened
    results = []
    for start in range(positions.start, positions.stop, batch_size):
        pixels = images.load(range(start, min(start + batch_size, positions.stop)))
        results.append(function(model, pixels, **settings))
        progress(len(pixels))
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.concatenate([result[name] for result in results]) for name in results[0]})  # type: ignore[arg-type]
    return [buffer.getvalue()]

"""Maps a function over the parts of a stage's work and keeps every finished part in the scratch
folder.

The parts are made in this process, or with ``TRUELIKE_EXECUTOR=ray`` by Ray tasks, one per GPU, on
this machine or on the cluster at ``RAY_ADDRESS``. There the project is at the same path on every
node; results travel through Ray, and this process writes them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import truelike
from truelike.runtime.devices import device
from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import Bar
from truelike.runtime.scratch import finished, write_finished

ATTEMPTS = 3  # at a part whose workers are lost
Progress = Callable[[int], object]


class Part(NamedTuple):
    """Work that is done at once: the files it ends as, the function's argument, how many
    items it covers.
    """

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
    """Make the files of every part that are not finished in `folder`; returns the number of items
    this took.

    ``make(open_model(), part.work, progress)`` returns the contents of the part's files and depends
    on nothing else; it calls `progress` with the number of items that are done since. The model is
    opened only if a part is missing.
    """
    missing = [part for part in parts if not all(finished(folder / file) for file in part.files)]
    total, left = (sum(part.size for part in some) for some in (parts, missing))
    if missing:
        with Bar(name, total, unit, done=total - left) as bar:
            for part, contents in _executor()(missing, open_model, make, bar.update):
                for file, content in zip(part.files, contents, strict=True):
                    write_finished(folder / file, partial(Path.write_bytes, data=content))
    return left


def _executor() -> Callable[..., Iterator[tuple[Part, list[bytes]]]]:
    name = os.environ.get("TRUELIKE_EXECUTOR", "")
    if name not in ("", "ray"):
        raise TruelikeError(
            f"TRUELIKE_EXECUTOR: no executor {name!r}; set it to 'ray', or not at all"
        )
    return _on_ray if name else _in_process


def _in_process(
    parts: Sequence[Part],
    open_model: Callable[[], Any],
    make: Callable[[Any, Any, Progress], list[bytes]],
    progress: Progress,
) -> Iterator[tuple[Part, list[bytes]]]:
    model = open_model()
    for part in parts:
        yield part, make(model, part.work, progress)


class _Model(NamedTuple):
    """What a worker process opens once: how, in which directory, and what tells it from others."""

    key: str
    folder: str
    open: Callable[[], Any]


_opened: dict[str, Any] = {}  # in a worker process: its model, by its key


def _make_in_worker(
    model: _Model, make: Callable[[Any, Any, Progress], list[bytes]], work: Any
) -> list[bytes]:
    if model.key not in _opened:
        _opened.clear()
        os.chdir(model.folder)
        _opened[model.key] = model.open()
    return make(_opened[model.key], work, lambda count: None)


def _on_ray(
    parts: Sequence[Part],
    open_model: Callable[[], Any],
    make: Callable[[Any, Any, Progress], list[bytes]],
    progress: Progress,
) -> Iterator[tuple[Part, list[bytes]]]:
    """A Ray task per part, on a GPU each or on as many cores as this process computes with, so that
    sums have its order. A task whose worker or node is lost runs again, ATTEMPTS times at most.
    """
    try:
        import ray
    except ImportError:
        raise TruelikeError(
            "TRUELIKE_EXECUTOR=ray needs Ray: pip install -c constraints.txt -e '.[ray]'"
        ) from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False)
    task = ray.remote(_make_in_worker).options(max_retries=ATTEMPTS - 1, **_resources())
    model = ray.put(_Model(uuid4().hex, str(Path.cwd()), open_model))
    running = {task.remote(model, make, part.work): part for part in parts}
    try:
        while running:
            done = ray.wait(list(running))[0][0]
            part = running.pop(done)
            try:
                contents = ray.get(done)
            except ray.exceptions.RayTaskError as error:  # the function's own error
                raise error.cause from None
            except ray.exceptions.RayError as error:  # its workers or what it returned are gone
                raise TruelikeError(
                    f"TRUELIKE_EXECUTOR=ray: {ATTEMPTS} workers were lost while making "
                    f"{part.files[0]}, the last by {error}; look into Ray's logs, for lack of "
                    "memory first, and run again: what is finished is kept"
                ) from None
            yield part, contents
            progress(part.size)
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _resources() -> dict[str, Any]:
    """What a task asks of Ray: a GPU where this process and the cluster have any, else this
    process's threads. It computes on the same type of device.
    """
    import ray
    import torch

    threads = torch.get_num_threads()
    path = [str(Path(truelike.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "OMP_NUM_THREADS": str(threads),
        "TRUELIKE_DEVICE": device().type,
    }
    gpus = device().type != "cpu" and ray.cluster_resources().get("GPU", 0)
    hardware = {"num_gpus": 1, "max_calls": 0} if gpus else {"num_cpus": threads}
    return {"runtime_env": {"env_vars": environment}, **hardware}

"""Maps a function over the parts of a stage's work and keeps every finished part in the scratch
folder.

The parts are made in this process, or with ``TRUELIKE_EXECUTOR=ray`` by Ray actors, one per GPU, on
this machine or on the cluster at ``RAY_ADDRESS``. There the project is at the same path on every
node; results travel through Ray, and this process writes them.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import truelike
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import finished, write_finished

ATTEMPTS = 3  # at a part whose workers are lost
Progress = Callable[[int], object]


class Part(NamedTuple):
    """Work that is done at once: the files it ends as, what the function is told of it, how many
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
        with tqdm(desc=name, total=total, initial=total - left, unit=unit) as bar:
            for part, contents in _executor()(missing, open_model, make, bar.update):
                for file, content in zip(part.files, contents, strict=True):
                    write_finished(folder / file, partial(_write, content))
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


class _Worker:
    """What an actor runs: the model, opened once, and the making of parts with it."""

    def open(self, folder: str, open_model: Callable[[], Any]) -> None:
        os.chdir(folder)
        self.model = open_model()

    def make(self, make: Callable[[Any, Any, Progress], list[bytes]], work: Any) -> list[bytes]:
        return make(self.model, work, lambda count: None)


def _on_ray(
    parts: Sequence[Part],
    open_model: Callable[[], Any],
    make: Callable[[Any, Any, Progress], list[bytes]],
    progress: Progress,
) -> Iterator[tuple[Part, list[bytes]]]:
    """An actor per GPU, or per group of as many cores as this process computes with, so that sums
    have its order.

    A part whose actor or node is lost goes to the next actor that is free, ATTEMPTS times at most.
    """
    try:
        import ray
        import torch
    except ImportError:
        raise TruelikeError(
            "TRUELIKE_EXECUTOR=ray needs Ray: pip install 'truelike[ray]'"
        ) from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False)
    threads = torch.get_num_threads()
    path = os.pathsep.join(
        filter(None, [str(Path(truelike.__file__).parent.parent), os.environ.get("PYTHONPATH")])
    )
    environment = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    slots = gpus or int(sum(node.get("CPU", 0) // threads for node in nodes))
    resources = {"num_gpus": 1} if gpus else {"num_cpus": threads}
    new = ray.remote(_Worker).options(runtime_env=environment, **resources).remote
    waiting, idle, lost = deque(parts), list[Any](), Counter[str]()
    running: dict[
        Any, tuple[Any, Part | None]
    ] = {}  # by what it will return, an actor and its part; None: it opens

    def start() -> None:
        actor = new()
        running[actor.open.remote(str(Path.cwd()), open_model)] = actor, None

    try:
        for _ in range(max(1, min(slots, len(parts)))):
            start()
        while waiting or any(part for _, part in running.values()):
            done = ray.wait(list(running))[0][0]
            actor, part = running.pop(done)
            task = f"making {part.files[0]}" if part else "opening the model"
            try:
                contents = ray.get(done)
            except ray.exceptions.RayTaskError as error:  # the function's own error
                raise error.cause from None
            except (
                ray.exceptions.RayError
            ) as error:  # the actor, its node or what it returned is gone
                lost[task] += 1
                if lost[task] == ATTEMPTS:
                    raise TruelikeError(
                        f"TRUELIKE_EXECUTOR=ray: {ATTEMPTS} workers were lost while {task}, the "
                        f"last by {error}; look "
                        "into Ray's logs, for lack of memory first, and run again: what is "
                        "finished is kept"
                    ) from None
                if part:
                    waiting.appendleft(part)
                ray.kill(actor)
                start()
            else:
                lost[task] = 0
                idle.append(actor)
                if part:
                    yield part, contents
                    progress(part.size)
            while waiting and idle:
                part, actor = waiting.popleft(), idle.pop()
                running[actor.make.remote(make, part.work)] = actor, part
    finally:
        for actor in [*idle, *(actor for actor, _ in running.values())]:
            ray.kill(actor)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)

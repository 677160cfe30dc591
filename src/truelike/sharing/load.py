"""`truelike.load`: the images of a project for those who only use them, from a directory or from
its remote.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.sharing.export import sets_in


class SharedImages(Dataset[tuple[Any, int]]):
    """Image sets one after the other: a torch data set of (image, label), and a plain iterator over
    `rows`.

    `sets` are the image sets, `class_names` what the labels mean. `transform` is given the image,
    uint8 (3, H, W).
    """

    def __init__(
        self, sets: list[ImageSet], transform: Callable[[Tensor], Any] | None = None
    ) -> None:
        self.sets = sets
        self.class_names = sets[0].class_names
        self.transform = transform
        self._ends = np.cumsum([len(images) for images in sets])
        self._labels = [images.labels for images in sets]
        for images in sets:
            if images.class_names != self.class_names:
                raise TruelikeError(
                    f"{images.folder}: has other classes than {sets[0].folder}; load one of them"
                )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> tuple[Any, int]:
        """The image, uint8 (3, H, W), or what `transform` makes of it, and its label; only this
        image is read.
        """
        if not -len(self) <= position < len(self):
            raise IndexError(f"{position} of {len(self)} images")
        position %= len(self)
        number = int(np.searchsorted(self._ends, position, side="right"))
        images = self.sets[number]
        place = position - (int(self._ends[number - 1]) if number else 0)
        image = torch.from_numpy(images.pixels(place).transpose(2, 0, 1).copy())
        return self.transform(image) if self.transform else image, int(self._labels[number][place])

    def rows(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Every image in stored order: its index row, and its pixels, uint8 (H, W, 3)."""
        for images in self.sets:
            for position, row in enumerate(images.index.to_dict("records")):
                yield {str(name): value for name, value in row.items()}, images.pixels(position)


def load(
    url_or_path: str | Path,
    *,
    rev: str | None = None,
    replica: int | None = None,
    split: str | None = None,
    transform: Callable[[Tensor], Any] | None = None,
) -> SharedImages:
    """Open synthetic images (all replicas, or one) or real ones (`split`: train, validation or
    test) of a project.

    `url_or_path` is the Git URL of a project, at the commit, branch or tag `rev`, whose shards are
    then read by range from its DVC remote, with nothing downloaded as a whole; or a directory: a
    project, or image sets got by `dvc get`. Raises TruelikeError if it cannot be reached or has no
    such set.
    """
    if replica is not None and split is not None:
        raise TruelikeError(
            "load: give replica (synthetic images) or split (real images), not both"
        )
    chosen = (
        f"real/{split}" if split else f"synthetic/{replica}" if replica is not None else "synthetic"
    )
    path = Path(url_or_path)
    if rev is None and (path / INDEX_FILE).exists() and chosen != "synthetic":
        raise TruelikeError(
            f"{path}: is one image set; replica and split choose among the sets of a project"
        )
    places = [path / "outputs" / chosen, path / chosen]
    if not (path / "dvc.yaml").exists():  # sets that were got, without their project
        places.append(path / chosen.partition("/")[2])
    for place in places:
        if rev is None and place.is_dir():
            return SharedImages([ImageSet(folder) for folder in sets_in(place)], transform)
    return SharedImages(_remote_sets(str(url_or_path), rev, f"outputs/{chosen}"), transform)


def _remote_sets(url: str, rev: str | None, folder: str) -> list[ImageSet]:
    names = [
        Path(entry).name
        for entry in _reached(url, rev, lambda files: files.ls(folder, detail=False))
    ]
    one = INDEX_FILE in names
    numbers = sorted((name for name in names if name.isdigit()), key=int)
    folders = [folder] if one else [f"{folder}/{name}" for name in numbers]
    if not folders:
        raise TruelikeError(f"{url}: no image set in {folder}; is the pipeline's result committed?")
    return [
        ImageSet(f"{url}@{rev or 'HEAD'}:{place}", _RemoteFiles(url, rev, place))
        for place in folders
    ]


@dataclass(frozen=True)
class _RemoteFiles:
    """Opens the files of a directory that DVC tracks in a project, wherever they are stored."""

    url: str
    rev: str | None
    folder: str

    def __call__(self, name: str) -> BinaryIO:
        file = _reached(self.url, self.rev, lambda files: files.open(f"{self.folder}/{name}", "rb"))
        try:
            file.seek(1)
            file.seek(0)
        except ValueError:
            raise TruelikeError(
                f"{self.url}: {self.folder}/{name}: its server does not answer range requests, so "
                "that single images "
                "cannot be read; get the whole set with `dvc get`"
            ) from None
        return cast(BinaryIO, file)


def _reached(url: str, rev: str | None, ask: Callable[[Any], Any]) -> Any:
    try:
        return ask(_files(url, rev, os.getpid()))
    except Exception as error:  # every kind of remote has errors of its own
        raise TruelikeError(
            f"{url}: cannot be read at {rev or 'its default branch'} ({error}); check the URL, "
            "rev, the network, and "
            "that the project's data was pushed"
        ) from None


@functools.cache
def _files(url: str, rev: str | None, process: int) -> Any:
    """DVC's view of a project's files; one for each process, as its connections cannot be
    shared.
    """
    from dvc.api import DVCFileSystem

    return DVCFileSystem(url, rev=rev)

"""`truelike.load`: the images of a project for those who only use them, from a directory or from
its remote.
"""

import functools
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.paths import OUTPUTS, selection_table
from truelike.runtime.errors import TruelikeError
from truelike.sharing.export import sets_in
from truelike.sharing.selection import read_selection, selected_rows


class SharedImages(Dataset[tuple[Any, int]]):
    """Image sets one after the other: a torch data set of (image, label), and a plain iterator over
    `rows`.

    `sets` are the image sets, `class_names` what the labels mean. `transform` is given the image,
    uint8 (3, H, W). With `selection`, a table as the stage select writes it, only the images that
    it keeps, with its labels.
    """

    def __init__(
        self,
        sets: list[ImageSet],
        transform: Callable[[Tensor], Any] | None = None,
        selection: pd.DataFrame | None = None,
    ) -> None:
        self.sets = sets
        self.class_names = sets[0].class_names
        self.transform = transform
        self._rows = [selected_rows(images, selection) for images in sets]
        self._ends = np.cumsum([len(positions) for positions, _ in self._rows])
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
        positions, labels = self._rows[number]
        place = position - (int(self._ends[number - 1]) if number else 0)
        pixels = self.sets[number].pixels(int(positions[place]))
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return self.transform(image) if self.transform else image, int(labels[place])

    def rows(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Every image in stored order: its index row, and its pixels, uint8 (H, W, 3)."""
        for images, (positions, labels) in zip(self.sets, self._rows, strict=True):
            names = [self.class_names[label] for label in labels]
            table = images.index.iloc[positions].assign(label=labels, class_name=names)
            for position, row in zip(positions, table.to_dict("records"), strict=True):
                pixels = images.pixels(int(position))
                yield {str(name): value for name, value in row.items()}, pixels


def load(
    url_or_path: str | Path,
    *,
    rev: str | None = None,
    replica: int | None = None,
    split: str | None = None,
    selected: bool = False,
    transform: Callable[[Tensor], Any] | None = None,
) -> SharedImages:
    """Open synthetic images (all replicas, or one) or real ones (`split`: train, validation or
    test) of a project.

    With `selected`, the synthetic images that selection kept, with the labels that it gave them.
    `url_or_path` is the Git URL of a project, at the commit, branch or tag `rev`, whose shards are
    then read by range from its DVC remote, with nothing downloaded as a whole; or a directory: a
    project, or image sets got by `dvc get`. Raises TruelikeError if it cannot be reached or has no
    such set.
    """
    if replica is not None and split is not None:
        raise TruelikeError(
            "load: give replica (synthetic images) or split (real images), not both"
        )
    if selected and split is not None:
        raise TruelikeError("load: selected is about synthetic images, split about real ones")
    chosen = (
        f"real/{split}" if split else f"synthetic/{replica}" if replica is not None else "synthetic"
    )
    path = Path(url_or_path)
    if rev is None and (path / INDEX_FILE).exists() and chosen != "synthetic":
        raise TruelikeError(
            f"{path}: is one image set; replica and split choose among the sets of a project"
        )
    places = [path / OUTPUTS / chosen, path / chosen]
    if not (path / "dvc.yaml").exists():  # sets that were got, without their project
        places.append(path / chosen.partition("/")[2])
    for place in places:
        if rev is None and place.is_dir():
            sets = [ImageSet(folder) for folder in sets_in(place)]
            selection = read_selection(sets[0]) if selected else None
            if selected and selection is None:
                raise TruelikeError(
                    f"{place}: no selection table beside it; load the project, or the sets with "
                    f"{selection_table('synthetic')}"
                )
            return SharedImages(sets, transform, selection)
    url = str(url_or_path)
    table = selection_table("synthetic").as_posix()
    selection = _reached(url, rev, lambda files: _read_table(files, table)) if selected else None
    return SharedImages(_remote_sets(url, rev, f"{OUTPUTS}/{chosen}"), transform, selection)


def _read_table(files: Any, path: str) -> pd.DataFrame:
    with files.open(path, "rb") as file:
        return pd.read_parquet(io.BytesIO(file.read()))


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

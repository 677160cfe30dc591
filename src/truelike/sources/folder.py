"""A source of picture files: classes by their folders, or by metadata tables that list the
pictures.
"""

from collections.abc import Sequence

from truelike.runtime.errors import TruelikeError
from truelike.sources.labels import check_class_names
from truelike.sources.layout import (
    LABELS,
    Folder,
    classes_of_pictures,
    named_splits,
    refusal,
    splits_of_pictures,
)
from truelike.sources.metadata import (
    FILE_COLUMN,
    LABEL_COLUMN,
    is_metadata,
    label_tables,
    read_metadata,
)
from truelike.sources.settings import Reading
from truelike.sources.source import Record, Source, Tree, distinct_sources, listed, parts

Hand = dict[str, tuple[str, Folder | None]]


def read_folder(
    tree: Tree, pictures: Sequence[str], hand: Hand | None, settings: Reading, section: str
) -> Source:
    """Read `pictures`, files of `tree`; `hand` is the split and class folder of each where they are
    set by hand.

    Raises TruelikeError for pictures that the rule does not place, and for metadata that does not
    fit them.
    """
    if settings.config:
        raise TruelikeError(
            f"{section}.config: {tree.root} is a folder of pictures, which has no configurations; "
            "set it to null"
        )
    chosen = tree.only(pictures)
    if tables := label_tables(tree, settings, section):
        splits = {file: hand[file][0] for file in pictures} if hand else None
        splits = splits or splits_of_pictures(chosen, section)
        return read_metadata(tree, tables, splits, settings, section)
    if settings.image_column or settings.label_column:
        raise TruelikeError(
            f"{section}.image_column and label_column: {tree.root} has its classes in folders, not "
            "in a table; "
            "set both to null"
        )
    placed = _by_folders(chosen, hand, section)
    levels = {folder[:-1] for _, folder in placed.values()}
    empty = (
        set() if hand else {path[-1] for path in map(parts, tree.folders) if path[:-1] in levels}
    )
    class_names = sorted({folder[-1] for _, folder in placed.values()} | empty)
    check_class_names(class_names, section)
    records = [
        Record(placed[file][0], placed[file][1][-1], source, (tree.root / file).read_bytes)
        for file, source in zip(pictures, distinct_sources(pictures), strict=True)
    ]
    doubtful = [name for name in class_names if named_splits(name) and not hand]
    notes = [f"taken as classes: {listed(doubtful)}"] if doubtful else []
    if unread := [file for file in tree.files if is_metadata(file)]:
        notes.append(f"no labels in {listed(unread)}: no columns {FILE_COLUMN} and {LABEL_COLUMN}")
    return Source(class_names, records, tuple(notes))


def _by_folders(tree: Tree, hand: Hand | None, section: str) -> dict[str, tuple[str, Folder]]:
    if hand is None:
        return classes_of_pictures(tree, section)
    placed = {}
    for file in tree.files:
        split, folder = hand[file]
        if folder is None:
            raise refusal(
                f"{section}.splits: {file!r} is {split} but lies in no class folder",
                tree,
                section,
                LABELS,
            )
        placed[file] = (split, folder)
    return placed

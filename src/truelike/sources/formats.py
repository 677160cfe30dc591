"""Opens a source of real images, whatever its format: a folder of pictures, parquet files, tar
archives, or the hub.

All end in the same `Source`: class names and one lazy `Record` per image.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from truelike.runtime.errors import TruelikeError
from truelike.sources.decode import PICTURES
from truelike.sources.folder import read_folder
from truelike.sources.hub import download
from truelike.sources.layout import (
    by_hand,
    configuration,
    only_configuration,
    refusal,
    splits_of_files,
)
from truelike.sources.metadata import is_metadata
from truelike.sources.parquet import holds_images, read_parquet
from truelike.sources.settings import Reading
from truelike.sources.source import SPLITS, Source, Tree, left_out_files, listed, walk
from truelike.sources.webdataset import read_webdataset

PACKED = (".7z", ".bz2", ".gz", ".rar", ".tgz", ".xz", ".zip", ".zst")
FORMATS = (
    "give a folder with one subfolder of images per class, a folder of parquet files or WebDataset "
    "tar archives, or a "
    "YAML file with `hub: OWNER/NAME`"
)


def open_source(settings: Reading, section: str = "data") -> Source:
    """Open a source to learn from; images are read only when asked for.

    Raises TruelikeError for anything that is no source, an empty class, fewer than two classes, or
    a class that one of the splits lacks; `section` is that of the parameters which errors name.
    """
    source = read_source(settings, section)
    if settings.skip_unused:
        source = without_unused(source)
    check_classes(source, settings, section)
    return source


def read_source(settings: Reading, section: str) -> Source:
    """Open a source whose splits and classes may be anything."""
    path = Path(settings.source)
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        root, settings = download(path, settings)
        return _read(walk(root), settings, section)
    if not path.exists():
        raise TruelikeError(f"{section}.source: {path} is not there; {FORMATS}")
    if not path.is_dir():
        kind = f"a {path.suffix} file" if path.suffix else "a file"
        advice = f"unpack it; {FORMATS}" if path.suffix.lower() in PACKED else FORMATS
        if path.suffix.lower() in (".parquet", ".tar"):
            advice = "give the folder that holds it"
        raise TruelikeError(f"{section}.source: {path} is {kind}, not a folder; {advice}")
    return _read(walk(path), settings, section)


def _read(tree: Tree, settings: Reading, section: str) -> Source:
    """Read a tree of files by the format of those that are meant, and note the others."""
    hand = by_hand(tree, settings.splits, section) if settings.splits else None
    files = tree.files if hand is None else tuple(hand)
    pictures, tables, archives = _by_format(tree.root, files, settings)
    if pictures and tables:
        problem = f"it has both pictures and parquet files with images, {pictures[0]}, {tables[0]}"
        raise refusal(problem, tree, section)
    used = pictures or tables or archives
    if not used:
        packed = [file for file in files if PurePosixPath(file).suffix.lower() in PACKED]
        advice = f"unpack {listed(packed, 3)}; {FORMATS}" if packed else FORMATS
        raise refusal("it has no pictures, parquet files or tar archives", tree, section, advice)
    if pictures:
        source = read_folder(tree, pictures, hand, settings, section)
    else:
        chosen = tree.only(used)
        if hand is not None:
            splits = {file: hand[file][0] for file in used}
        elif settings.config is not None:
            chosen = configuration(chosen, settings.config, section)
            splits = splits_of_files(chosen, section)
        else:
            splits = splits_of_files(chosen, section)
            only_configuration(chosen, section)
        used = list(splits)
        read = read_parquet if tables else read_webdataset
        source = read(tree, splits, settings, section)
    others = [file for file in tree.files if file not in set(used) and not is_metadata(file)]
    unread = set(others) & set(files)
    if broken := [file for file in sorted(unread) if not (tree.root / file).exists()]:
        raise TruelikeError(
            f"{section}.source: {tree.root}: links to nothing: {listed(broken)}; restore what they "
            "lead to, or remove them"
        )
    notes = left_out_files(others)
    return replace(source, notes=(*tree.notes(), *notes, *source.notes))


def _by_format(
    root: Path, files: Sequence[str], settings: Reading
) -> tuple[list[str], list[str], list[str]]:
    """The pictures, the parquet files and the tar archives among files.

    Beside pictures or archives, a parquet file counts only if it holds images itself.
    """
    pictures = [file for file in files if PurePosixPath(file).suffix.lower() in PICTURES]
    tables = [file for file in files if PurePosixPath(file).suffix.lower() == ".parquet"]
    archives = [file for file in files if PurePosixPath(file).suffix.lower() == ".tar"]
    if pictures or archives:
        tables = [file for file in tables if holds_images(root / file, settings)]
    return pictures, tables, archives


def without_unused(source: Source) -> Source:
    """Leave out the class names that no image has, and note them."""
    used = {record.class_name for record in source.records}
    unused = [name for name in source.class_names if name not in used]
    note = (f"left out {len(unused)} classes without images: {listed(unused)}",) if unused else ()
    return replace(
        source,
        class_names=[name for name in source.class_names if name in used],
        notes=(*source.notes, *note),
    )


def check_classes(source: Source, settings: Reading, section: str) -> None:
    """Raise TruelikeError unless there are two classes or more, and images of each in every split
    that has images.
    """
    if len(source.class_names) < 2:
        found = ", ".join(source.class_names) or "none"
        folder = Path(settings.source) / (source.class_names or [""])[0]
        advice = (
            f"; did you mean {section}.source: {folder}?"
            if source.class_names and folder.is_dir()
            else ""
        )
        notes = "".join(f"\n  {note}" for note in source.notes)
        raise TruelikeError(
            f"{section}.source: {settings.source}: needs two or more classes, found "
            f"{found}{advice}{notes}"
        )
    for split in SPLITS:
        present = {record.class_name for record in source.records if record.split == split}
        absent = [name for name in source.class_names if name not in present]
        if not present and split == "train":
            raise TruelikeError(
                f"{section}.source: {settings.source} has no training images; "
                f"set {section}.splits: {{train: ...}} to say which they are"
            )
        if absent and present:
            used = {record.class_name for record in source.records}
            hint = (
                f"; {section}.skip_unused: true leaves out classes without images"
                if set(absent) - used
                else ""
            )
            raise TruelikeError(
                f"{section}.source: {settings.source}: no {split} images of {listed(absent)}; "
                f"every split needs every class{hint}"
            )

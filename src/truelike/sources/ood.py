"""Out-of-distribution test sets: corrupted test images, and image sets of another look in our
classes.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import track
from truelike.runtime.scratch import stack_on_disk
from truelike.sources.checks import digests, read_bytes
from truelike.sources.corruptions import SEVERITIES, corrupt
from truelike.sources.decode import decode_rgb, to_square
from truelike.sources.formats import read_source, without_unused
from truelike.sources.prepare import image_key
from truelike.sources.settings import Corrupt, Depth, OodSet
from truelike.sources.source import Record, description, listed
from truelike.sources.split import few_shots

SHOWN = 10


def write_corrupted(test: ImageSet, settings: Corrupt, folder: Path) -> None:
    """Write `images_per_class` test images in every kind and severity as one image set.

    Index columns: `corruption`, `severity` and `source_key`; each kind and severity has the same
    images in one order.
    """
    shutil.rmtree(folder, ignore_errors=True)  # its files may be hardlinks into DVC's cache
    write_image_set(folder, _corrupted(test, settings), test.class_names)


def _corrupted(test: ImageSet, settings: Corrupt) -> Iterator[Sample]:
    keys, labels = test.keys, test.labels
    chosen, _ = few_shots(
        range(len(test)),
        settings.images_per_class,
        lambda p: keys[p],
        lambda p: str(labels[p]),
        settings.seed,
    )
    positions = sorted(chosen)
    pixels = stack_on_disk(map(test.pixels, positions))
    for kind in settings.kinds:
        for severity in SEVERITIES:
            for position, original in zip(positions, pixels, strict=True):
                seed = corruption_seed(settings.seed, kind, severity, keys[position])
                image = corrupt(original[None], kind, severity, np.array([seed]))[0]
                columns = {
                    "split": "test",
                    "corruption": kind,
                    "severity": severity,
                    "source_key": keys[position],
                }
                yield Sample(
                    f"{keys[position]}-{kind}-{severity}", int(labels[position]), image, columns
                )


def corruption_seed(seed: int, kind: str, severity: int, key: str) -> int:
    """The seed of one corrupted image, from 0 to 2^63 - 1."""
    digest = hashlib.sha256(f"{seed}/{kind}/{severity}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def write_ood_set(
    name: str,
    settings: OodSet,
    class_names: Sequence[str],
    resolution: int,
    square: str,
    folder: Path,
) -> None:
    """Write the images of ``ood.NAME`` whose class is one of ours, labelled and squared as the real
    images are.

    Those of its test split where the source has one, else all. Classes that are not ours are left
    out, and named. Raises TruelikeError for a class map or a list of classes that names a class
    which neither side has.
    """
    section = f"ood.{name}"
    source = read_source(settings, section)
    if settings.skip_unused:
        source = without_unused(source)
    print(f"{section}.source: {settings.source}: {description(source)}", file=sys.stderr)
    _check_names(
        f"{section}.class_map",
        settings.class_map,
        source.class_names,
        f"classes of {settings.source}",
    )
    for parameter, names in (
        ("class_map", settings.class_map.values()),
        ("classes", settings.classes or ()),
    ):
        _check_names(f"{section}.{parameter}", names, class_names, "classes of data.source")
    ours = {theirs: settings.class_map.get(theirs, theirs) for theirs in source.class_names}
    used = settings.classes or class_names
    if left_out := [theirs for theirs, own in ours.items() if own not in used]:
        print(
            f"{section}: {len(left_out)} classes that are not ours are left out: "
            f"{listed(left_out)}",
            file=sys.stderr,
        )
    tested = [record for record in source.records if record.split == "test"] or source.records
    if len(tested) < len(source.records):
        print(f"{section}: its {len(tested):,} test images are used, no others", file=sys.stderr)
    records = [record for record in tested if ours[record.class_name] in used]
    readable = digests(records, settings, section)
    records = [record for record in records if record.source in readable]
    labels = {record.source: list(class_names).index(ours[record.class_name]) for record in records}
    shutil.rmtree(folder, ignore_errors=True)
    squares = _squared(section, records, labels, settings.depth, resolution, square)
    write_image_set(folder, squares, class_names)


def _check_names(parameter: str, names: Iterable[str], known: Sequence[str], what: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise TruelikeError(
            f"{parameter}: {unknown[0]!r} is none of the {len(known)} {what}: "
            f"{', '.join(known[:SHOWN])}"
        )


def _squared(
    section: str,
    records: Sequence[Record],
    labels: dict[str, int],
    depth: Depth,
    resolution: int,
    square: str,
) -> Iterator[Sample]:
    for record in track(records, section, len(records)):
        picture = decode_rgb(read_bytes(record), record.source, depth)
        columns = {"split": "test", "source": record.source}
        pixels = to_square(picture, resolution, square)
        yield Sample(image_key(record.source), labels[record.source], pixels, columns)

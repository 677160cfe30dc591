"""From a source to the four real image sets: train (few shots), validation, test, and the extra
real images.
"""

import hashlib
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.sources.decode import decode_rgb, square_pixels
from truelike.sources.formats import SPLITS, Record, Source, open_source
from truelike.sources.settings import Data
from truelike.sources.split import by_class, distinct, few_shots, hash_order, hold_out

SHOWN = 10


def image_key(source: str) -> str:
    """The key of a real image: ASCII of its file name, and eight hex digits of the sha256 of its
    path in the source.
    """
    ascii_stem = (
        unicodedata.normalize("NFKD", PurePosixPath(source).stem).encode("ascii", "ignore").decode()
    )
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_stem.lower()).strip("-")[:40].strip("-") or "image"
    return f"{slug}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def prepare(settings: Data, real: Path, extra: Path) -> None:
    """Write the image sets ``real/train``, ``real/validation``, ``real/test`` and `extra`.

    `extra` holds the training images beyond ``shots`` per class; no arm but the control
    ``more_real`` sees them. Each set is in an order that mixes the classes and depends on nothing
    but the seed and the images. Raises TruelikeError for a missing source, unreadable images, the
    same pixels in two splits or classes, or an unknown image to exclude.
    """
    source = open_source(settings.source)
    records = check_pixels(source.records, settings.exclude)
    for name, chosen in choose(records, settings).items():
        folder = extra if name == "extra" else real / name
        shutil.rmtree(folder, ignore_errors=True)  # its files may be hardlinks into DVC's cache
        ordered = hash_order(chosen, lambda r: r.source, settings.seed, "order")
        write_image_set(folder, samples(ordered, name, source, settings), source.class_names)


def check_pixels(records: Sequence[Record], exclude: Sequence[str] = ()) -> list[Record]:
    """Decode every image once and leave out repeated ones; repeated means equal size and equal RGB
    pixels.

    The images that `exclude` names by path or key are left out with all images that repeat them.
    Raises TruelikeError that lists the unreadable images, the images in more than one split, or in
    more than one class.
    """
    excluded = _excluded(records, exclude)
    digests: dict[str, bytes] = {}
    unreadable = []
    for record in tqdm(records, desc="checking", unit="image", disable=None):
        try:
            image = decode_rgb(record.read(), record.source)
        except TruelikeError as error:
            if record.source not in excluded:
                unreadable.append(str(error))
            continue
        digests[record.source] = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    _refuse(unreadable, "images cannot be used")
    gone = {digests[name] for name in excluded if name in digests}
    left = [
        record
        for record in records
        if record.source not in excluded and digests[record.source] not in gone
    ]
    _check_left(records, left)
    kept, repeated = distinct(left, lambda r: digests[r.source])
    pairs = [
        (a, b, f"{a.source} ({a.split}, {a.class_name}) = {b.source} ({b.split}, {b.class_name})")
        for a, b in repeated
    ]
    _refuse(
        [text for a, b, text in pairs if a.class_name != b.class_name],
        "images are in two classes; keep each in one",
    )
    _refuse(
        [text for a, b, text in pairs if a.split != b.split],
        "images are in two splits, so the verdict would be wrong; keep each in one",
    )
    if repeated:
        print(
            f"{len(repeated)} images repeat another one of their split and are left out",
            file=sys.stderr,
        )
    return kept


def _excluded(records: Sequence[Record], exclude: Sequence[str]) -> set[str]:
    """The sources of the images that `exclude` names; raises TruelikeError for a name that is no
    image's.
    """
    sources = {
        name: record.source
        for record in records
        for name in (image_key(record.source), record.source)
    }
    if unknown := [name for name in exclude if name not in sources]:
        raise TruelikeError(
            f"data.exclude: {unknown[0]!r} is neither the path nor the key of an image of "
            "data.source; "
            "`truelike trace` finds it in the sets that were made with it"
        )
    return {sources[name] for name in exclude}


def _check_left(records: Sequence[Record], left: Sequence[Record]) -> None:
    if len(left) < len(records):
        print(
            f"data.exclude: {len(records) - len(left)} images left out, copies among them",
            file=sys.stderr,
        )
    emptied = {(r.split, r.class_name) for r in records} - {(r.split, r.class_name) for r in left}
    for split, class_name in sorted(emptied):
        raise TruelikeError(
            f"data.exclude: no {split} image of class {class_name!r} is left; every class needs "
            "some"
        )


def _refuse(lines: list[str], what: str) -> None:
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise TruelikeError(
            "\n  ".join([f"data.source: {len(lines)} {what}:", *lines[:SHOWN], *more])
        )


def choose(records: Sequence[Record], settings: Data) -> dict[str, list[Record]]:
    """Assign records to train, validation, test and extra; splits that the source lacks are held
    out from its train.
    """

    def key(record: Record) -> str:
        return record.source

    def label(record: Record) -> str:
        return record.class_name

    sets = {split: [record for record in records if record.split == split] for split in SPLITS}
    for split, fraction in (
        ("test", settings.test_fraction),
        ("validation", settings.validation_fraction),
    ):
        if not sets[split]:
            sets["train"], sets[split] = hold_out(
                sets["train"], fraction, key, label, settings.seed, split
            )
    shots = settings.shots
    for name, group in by_class(sets["train"], label).items():
        if shots is not None and len(group) < shots:
            print(
                f"data.shots is {shots}, class {name!r} has {len(group)} training images: all are "
                "used",
                file=sys.stderr,
            )
    sets["train"], sets["extra"] = few_shots(sets["train"], shots, key, label, settings.seed)
    return sets


def samples(
    records: Sequence[Record], split: str, source: Source, settings: Data
) -> Iterator[Sample]:
    """Read, decode and square the images of `records`, one at a time."""
    labels = {name: label for label, name in enumerate(source.class_names)}
    for record in tqdm(records, desc=split, unit="image", disable=None):
        pixels = square_pixels(record.read(), record.source, settings)
        columns = {"split": split, "source": record.source}
        yield Sample(image_key(record.source), labels[record.class_name], pixels, columns)

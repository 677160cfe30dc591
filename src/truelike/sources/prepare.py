"""From a source to the four real image sets: train (few shots), validation, test, and the extra
real images.
"""

import hashlib
import re
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import track
from truelike.sources.checks import digests, read_bytes, without_repeats
from truelike.sources.decode import square_pixels
from truelike.sources.formats import check_classes, open_source, without_unused
from truelike.sources.settings import Data
from truelike.sources.source import SPLITS, Record, Source, description, nfc
from truelike.sources.split import by_class, few_shots, hash_order, hold_out


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
    source = open_source(settings)
    print(f"data.source: {settings.source}: {description(source)}", file=sys.stderr)
    kept = replace(source, records=usable(source.records, settings))
    source = without_unused(kept) if settings.skip_unused else kept
    check_classes(source, settings, "data")
    sets = choose(source.records, settings)
    print(f"prepared: {_sizes(sets)}", file=sys.stderr)
    for name, chosen in sets.items():
        folder = extra if name == "extra" else real / name
        shutil.rmtree(folder, ignore_errors=True)  # its files may be hardlinks into DVC's cache
        ordered = hash_order(chosen, lambda r: r.source, settings.seed, "order")
        write_image_set(folder, samples(ordered, name, source, settings), source.class_names)


def _sizes(sets: dict[str, list[Record]]) -> str:
    """How many images each set has, and how many of a class at least and at most."""
    shown = []
    for name, records in sets.items():
        counts = Counter(record.class_name for record in records).values()
        span = f" ({min(counts):,} to {max(counts):,} per class)" if counts else ""
        shown.append(f"{len(records):,} {name}{span}")
    return ", ".join(shown)


def usable(records: Sequence[Record], settings: Data) -> list[Record]:
    """Decode every image once and leave out repeated ones; repeated means equal size and equal RGB
    pixels.

    The images that ``exclude`` names by path or key are left out with all images that repeat them.
    Raises TruelikeError that lists the unreadable images, the images in more than one split, or in
    more than one class.
    """
    excluded = _excluded(records, settings.exclude)
    digest = digests(records, settings, "data", excluded)
    readable = [r for r in records if r.source in digest or r.source in excluded]
    gone = {digest[name] for name in excluded if name in digest}
    left = [r for r in readable if r.source not in excluded and digest[r.source] not in gone]
    _check_left(readable, left)
    return without_repeats(left, digest)


def _excluded(records: Sequence[Record], exclude: Sequence[str]) -> set[str]:
    """The sources of the images that `exclude` names; raises TruelikeError for a name that is no
    image's.
    """
    sources = {image_key(record.source): record.source for record in records}
    sources |= {nfc(record.source): record.source for record in records}
    sources |= {record.source: record.source for record in records}
    named = [name if name in sources else nfc(name) for name in exclude]
    if unknown := [name for name in named if name not in sources]:
        raise TruelikeError(
            f"data.exclude: {unknown[0]!r} is neither the path nor the key of an image of "
            "data.source; `truelike trace` finds it in the sets that were made with it"
        )
    return {sources[name] for name in named}


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
            print(
                f"data.source has no {split} images: {len(sets[split]):,} of train are held out",
                file=sys.stderr,
            )
    shots = settings.shots
    groups = by_class(sets["train"], label)
    if isinstance(shots, dict):
        _check_shots(shots, groups)
    for name, group in groups.items():
        wanted = shots[name] if isinstance(shots, dict) else shots
        if wanted is not None and len(group) < wanted:
            print(
                f"data.shots is {wanted}, class {name!r} has {len(group)} training images: all are "
                "used",
                file=sys.stderr,
            )
    sets["train"], sets["extra"] = few_shots(sets["train"], shots, key, label, settings.seed)
    return sets


def _check_shots(shots: Mapping[str, int | None], classes: Collection[str]) -> None:
    """Raise TruelikeError unless numbers for single classes are for just the classes there are."""
    unknown, missing = [name for name in shots if name not in classes], set(classes) - set(shots)
    if unknown or missing:
        problem = f"{unknown[0]!r} is no class" if unknown else f"no number for {min(missing)!r}"
        raise TruelikeError(
            f"data.shots: {problem}; give each class its number (null takes all): "
            f"{', '.join(map(repr, sorted(classes)))}"
        )


def samples(
    records: Sequence[Record], split: str, source: Source, settings: Data
) -> Iterator[Sample]:
    """Read, decode and square the images of `records`, one at a time."""
    labels = {name: label for label, name in enumerate(source.class_names)}
    for record in track(records, split, len(records)):
        pixels = square_pixels(read_bytes(record), record.source, settings)
        columns = {"split": split, "source": record.source}
        yield Sample(image_key(record.source), labels[record.class_name], pixels, columns)

"""Every image of a source decoded once: which cannot be used, and which repeat another one."""

import hashlib
import sys
from collections.abc import Collection, Sequence

from truelike.runtime.errors import TruelikeError
from truelike.runtime.progress import track
from truelike.runtime.scratch import scratch_root
from truelike.sources.decode import DEEP_COLOUR, decode
from truelike.sources.settings import Reading
from truelike.sources.source import Record
from truelike.sources.split import distinct

SHOWN = 10
LITTLE_USED = 0.25  # of the range of 16 bits


def read_bytes(record: Record) -> bytes:
    """The bytes of an image's file; raises TruelikeError for one that cannot be read."""
    try:
        return record.read()
    except OSError as error:
        why = error.strerror or error
        raise TruelikeError(
            f"{record.source}: cannot be read ({why}); make it readable or remove it"
        ) from None


def digests(
    records: Sequence[Record], settings: Reading, section: str, ignored: Collection[str] = ()
) -> dict[str, bytes]:
    """The digest of the size and RGB pixels of every image, by its path in the source.

    Images that cannot be used are listed in a file below ``.work/bad_files``. They are left out
    with ``skip_bad``, as are those of `ignored` in any case; else raises TruelikeError that names
    the first of them and that file.
    """
    found: dict[str, bytes] = {}
    bad: list[str] = []
    ranges: dict[str, float] = {}
    for record in track(records, f"checking {section}", len(records)):
        try:
            image, used = decode(read_bytes(record), record.source, settings.depth)
        except TruelikeError as error:
            if record.source not in ignored:
                bad.append(str(error))
            continue
        if used is not None:
            ranges[record.source] = used
        content = f"{image.size}".encode() + image.tobytes()
        found[record.source] = hashlib.sha256(content).digest()
    _warn_of_depth(ranges, settings, section)
    _report_bad(bad, settings, section)
    return found


def _warn_of_depth(ranges: dict[str, float], settings: Reading, section: str) -> None:
    little = [source for source, used in ranges.items() if used < LITTLE_USED]
    if little and settings.depth == "full":
        print(
            f"warning: {section}.depth is full, but {len(little)} of {len(ranges)} images of 16 "
            f"bits use less than a quarter of that range, such as {little[0]} "
            f"({ranges[little[0]]:.1%}): they will be nearly flat; minmax or percentile stretches "
            f"grey ones, convert colour ones ({DEEP_COLOUR})",
            file=sys.stderr,
        )


def _report_bad(bad: Sequence[str], settings: Reading, section: str) -> None:
    file = scratch_root() / "bad_files" / f"{section}.txt"
    file.unlink(missing_ok=True)
    if not bad:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*bad, ""]), encoding="utf-8")
    if settings.skip_bad:
        print(
            f"{section}.skip_bad: left out {len(bad):,} images that cannot be used, listed in "
            f"{file.absolute()}; the first is {bad[0]}",
            file=sys.stderr,
        )
        return
    all_of_them = f"all are listed in {file.absolute()}; {section}.skip_bad: true leaves them out"
    refuse(bad, "images cannot be used", section, all_of_them)


def refuse(lines: Sequence[str], what: str, section: str, advice: str = "") -> None:
    """Raise TruelikeError that shows the first of `lines` and counts all, if there are any."""
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        head = f"{section}.source: {len(lines)} {what}:"
        raise TruelikeError(
            "\n  ".join([head, *lines[:SHOWN], *more, *([advice] if advice else [])])
        )


def without_repeats(records: Sequence[Record], digest: dict[str, bytes]) -> list[Record]:
    """The records without those whose pixels repeat another one's of their split and class.

    Raises TruelikeError that lists the images in more than one split, or in more than one class.
    """
    kept, repeated = distinct(records, lambda r: digest[r.source])
    pairs = [
        (a, b, f"{a.source} ({a.split}, {a.class_name}) = {b.source} ({b.split}, {b.class_name})")
        for a, b in repeated
    ]
    refuse(
        [text for a, b, text in pairs if a.class_name != b.class_name],
        "images are in two classes; keep each in one",
        "data",
    )
    refuse(
        [text for a, b, text in pairs if a.split != b.split],
        "images are in two splits, so the verdict would be wrong; keep each in one",
        "data",
    )
    if repeated:
        print(
            f"left out {len(repeated)} images that repeat another one of their split, the first "
            f"is {repeated[0][1].source}",
            file=sys.stderr,
        )
    return kept

"""The pictures that the report shows as examples, each embedded with its text."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from truelike.imageset.reading import ImageSet
from truelike.paths import TRAIN
from truelike.reporting.material import Material
from truelike.reporting.pictures import contact_sheet, data_uri

MAX_CLASSES = 24  # shown with pictures
MAX_DROPPED = 12  # pictures per reason
MAX_PAIRS = 8  # near-copies per set
REASONS = {
    "label": "Not recognised as its class",
    "near-copy": "Near-copy of a real training image",
}


def class_examples(material: Material) -> Iterator[dict[str, Any]]:
    """Per class, real training images and, under each, the first synthetic images made for it in
    the first replicas; those without one come last.
    """
    real, settings = material.real, material.settings
    captions = material.captions.set_index("key")["caption"]
    # Otherwise they are captions of naive images.
    of_real_images = settings.caption.images == str(TRAIN)
    reasons = _reasons(material.selection)
    naive, synthetic = material.naive[0], material.synthetic[0]
    naive_rows = {key: row for row, key in enumerate(naive.index["source_key"])}
    firsts = synthetic.index["source_key"].drop_duplicates()
    synthetic_rows = dict(zip(firsts, firsts.index, strict=True))
    for label, name in list(enumerate(real.class_names))[:MAX_CLASSES]:
        own = np.flatnonzero(real.labels == label).tolist()
        own.sort(key=lambda row: real.keys[row] not in synthetic_rows)
        rows = own[: settings.report.pictures_per_class]
        keys = [real.keys[row] for row in rows]
        yield {
            "name": name,
            "real": [
                picture(real, row, (of_real_images and captions[key]) or name)
                for row, key in zip(rows, keys, strict=True)
            ],
            "naive": [_synthetic_picture(naive, naive_rows[key], {}) for key in keys],
            "synthetic": [
                _synthetic_picture(synthetic, synthetic_rows[key], reasons)
                for key in keys
                if key in synthetic_rows
            ],
        }


def dropped_examples(material: Material) -> list[dict[str, Any]]:
    """Dropped synthetic images by kind of reason, most frequent first, each with a few pictures."""
    reasons = pd.Series(_reasons(material.selection), dtype=object)
    kinds = reasons.map(lambda reason: re.split(r"[: ]", reason)[0])
    places = _places(material.synthetic)
    return [
        {
            "kind": REASONS[str(kind)],
            "count": int(count),
            "pictures": [
                picture(*places[key], reason)
                for key, reason in reasons[kinds == kind].head(MAX_DROPPED).items()
            ],
        }
        for kind, count in kinds.value_counts().items()
    ]


def near_copy_pairs(material: Material) -> dict[str, list[dict[str, Any]]]:
    """The images most similar to a real training image, each beside it, by synthetic set."""
    real = _places([material.real])
    pairs = {}
    for name, sets in (("naive", material.naive), ("synthetic", material.synthetic)):
        places = _places(sets)
        rows = material.near_copies[material.near_copies["set"] == name]
        pairs[name] = [
            {
                "image": picture(*places[row.key], f"{name} image {row.key}"),
                "nearest": picture(
                    *real[row.nearest_key], f"real training image {row.nearest_key}"
                ),
                "similarity": row.similarity,
            }
            for row in rows.nlargest(MAX_PAIRS, "similarity").itertuples()
        ]
    return pairs


def ood_examples(sets: Mapping[str, ImageSet]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(name, pictures): one image of each class of a set, and one image at all severities of each
    corruption.
    """
    for name, images in sets.items():
        if len(images) and name == "corrupted":
            yield from _corrupted_examples(images)
        elif len(images):
            labels, firsts = np.unique(images.labels, return_index=True)
            shown = list(zip(firsts, labels, strict=True))[:MAX_CLASSES]
            yield (
                name,
                [picture(images, int(row), images.class_names[label]) for row, label in shown],
            )


def _corrupted_examples(images: ImageSet) -> Iterator[tuple[str, list[dict[str, str]]]]:
    for kind, rows in images.index.groupby("corruption", sort=False):
        first = rows[rows["source_key"] == rows["source_key"].iloc[0]]
        texts = [f"{kind}, severity {severity}" for severity in first["severity"]]
        places = zip(first.index, texts, strict=True)
        yield str(kind), [picture(images, row, text) for row, text in places]


def overview(material: Material, rows: int = 2, columns: int = 10) -> Image.Image:
    """Real, naive and synthetic images of the first classes: a column per class, `rows` of each
    set, blank where a class has fewer.
    """
    names = material.real.class_names[:columns]
    blank = np.full_like(material.real.pixels(0), 255)
    sheet = []
    for name, images in (
        ("real", material.real),
        ("naive", material.naive[0]),
        ("synthetic", material.synthetic[0]),
    ):
        chosen = [np.flatnonzero(images.labels == label)[:rows] for label in range(len(names))]
        for row in range(max(map(len, chosen))):
            label = name if row == 0 else ""
            row_pictures = [
                images.pixels(places[row]) if row < len(places) else blank for places in chosen
            ]
            sheet.append((label, row_pictures))
    return contact_sheet(sheet, names)


def picture(images: ImageSet, row: int, text: str) -> dict[str, str]:
    """An image as the template shows it: `uri`, `text`, and `dropped`, why selection dropped it."""
    return {"uri": data_uri(images.pixels(row)), "text": text, "dropped": ""}


def _synthetic_picture(images: ImageSet, row: int, reasons: Mapping[str, str]) -> dict[str, str]:
    key, prompt = images.index["key"].iloc[row], images.index["prompt"].iloc[row]
    return picture(images, row, prompt) | {"dropped": reasons.get(key, "")}


def _reasons(selection: pd.DataFrame) -> dict[str, str]:
    dropped = selection[~selection["keep"].astype(bool)]
    return dict(zip(dropped["key"], dropped["reason"], strict=True))


def _places(sets: Sequence[ImageSet]) -> dict[Any, tuple[ImageSet, int]]:
    return {key: (images, row) for images in sets for row, key in enumerate(images.keys)}

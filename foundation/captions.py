"""Writes captions from the attributes that an image was rendered with, so they are right by
construction.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from foundation.attributes import CLASS_NAMES, PROPERTIES

NOUNS = dict(zip(CLASS_NAMES, (*CLASS_NAMES[:-1], "boot"), strict=True))


def describe(row: dict[str, str]) -> str:
    """Describe an image as the captioner does: ``a white boot on a black background, plain
    short``.
    """
    colour = f"{row['shade']} {row['colour']}".strip()
    tail = " ".join(word for word in (row["pattern"], row["length"], row["width"]) if word)
    return f"a {colour} {NOUNS[row['class']]} on a {row['ground']} background, {tail}"


def phrasings(row: dict[str, str]) -> list[tuple[str, float, tuple[str, ...]]]:
    """List the captions of an image, each with its share and the attributes that it states."""
    name, colour = row["class"], f"{row['shade']} {row['colour']}".strip()
    article = "an" if name[0] in "aeiou" else "a"
    full, pattern, ground = describe(row), row["pattern"], row["ground"]
    garment, tinted = ("class",), ("class", "colour", "shade")
    everything = tuple(PROPERTIES)
    return [
        (full, 0.18, everything),
        (f"a photo of {article} {name}, {full}", 0.16, everything),
        (f"{article} {name} photo, {full}", 0.05, everything),
        (f"photo of {name}, {full}, best quality", 0.05, everything),
        (f"a {pattern} {colour} {name}, {ground} background", 0.08, (*tinted, "pattern", "ground")),
        (f"a photo of a {colour} {name} on {ground}", 0.08, (*tinted, "ground")),
        (f"a {colour} {name}", 0.08, tinted),
        (f"{article} {name} on a {ground} background", 0.04, ("class", "ground")),
        (f"a {pattern} {name}", 0.03, ("class", "pattern")),
        (f"a photo of {article} {name}", 0.12, garment),
        (f"{article} {name} photo", 0.05, garment),
        (f"{article} {name}", 0.04, garment),
        (name, 0.04, garment),
    ]


def draw_captions(
    rows: pd.DataFrame, rng: np.random.Generator
) -> tuple[list[str], NDArray[np.bool_]]:
    """Draw a phrasing for each of N images: its caption, and which of PROPERTIES it states,
    (N, 7).
    """
    captions, states = [], np.zeros((len(rows), len(PROPERTIES)), bool)
    for i, row in enumerate(rows.to_dict("records")):
        choices = phrasings(row)
        caption, _, stated = choices[rng.choice(len(choices), p=[share for _, share, _ in choices])]
        captions.append(caption)
        states[i] = [name in stated for name in PROPERTIES]
    return captions, states

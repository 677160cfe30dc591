"""Captions that contradict their image's label: they name another class of the set and not its
own.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from truelike.captioning.captioner import captions_again, open_captioner
from truelike.captioning.settings import Caption
from truelike.imageset.mapping import map_images
from truelike.imageset.reading import ImageSet
from truelike.runtime.hub import Model

WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")  # t-shirt is one word
IRREGULAR = {
    **{"men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot"},
    **{"mice": "mouse", "geese": "goose", "teeth": "tooth", "buses": "bus", "lenses": "lens"},
    **{"leaves": "leaf", "knives": "knife", "wolves": "wolf", "loaves": "loaf", "calves": "calf"},
    **{"scarves": "scarf", "shelves": "shelf", "halves": "half", "hooves": "hoof"},
    **{"shoes": "shoe", "horseshoes": "horseshoe", "canoes": "canoe", "toes": "toe"},
}
SAME_IN_BOTH = ("ss", "us", "is")  # ends of singulars


class Mention(NamedTuple):
    """Where a caption names a class, and the labels of the classes of that name."""

    start: int
    end: int
    labels: frozenset[int]


@dataclass(frozen=True)
class ClassNames:
    """Names of classes as they are looked for: singular, without spaces and hyphens, with the
    labels that have them; `longest` is the number of words of the longest.
    """

    labels: dict[str, frozenset[int]]
    longest: int

    @classmethod
    def of(cls, class_names: Sequence[str]) -> "ClassNames":
        """The names of classes in the order of their labels; one with commas is several names."""
        labels: dict[str, set[int]] = defaultdict(set)
        longest = 1
        for label, class_name in enumerate(class_names):
            for name in class_name.casefold().split(","):
                words = re.findall(r"[^\W_]+", name)
                if words:
                    labels[singular("".join(words))].add(label)
                    longest = max(longest, len(words))
        return cls({name: frozenset(found) for name, found in labels.items()}, longest)

    def mentions(self, caption: str) -> list[Mention]:
        """The names in a caption from left to right, of overlapping ones the longest: in "t-shirt"
        there is no "shirt", whether or not t-shirt is a class.
        """
        words = list(WORD.finditer(caption.casefold()))
        found, first = [], 0
        while first < len(words):
            after = first + 1
            for last in range(min(first + self.longest, len(words)), first, -1):
                chosen = words[first:last]
                spelled = "".join(word[0] for word in chosen).replace("-", "")
                if labels := self.labels.get(singular(spelled)):
                    found.append(Mention(chosen[0].start(), chosen[-1].end(), labels))
                    after = last
                    break
            first = after
        return found

    def contradiction(self, caption: str, label: int) -> Mention | None:
        """The first class that a caption names, if it names some and not the image's own."""
        found = self.mentions(caption)
        if not found or any(label in mention.labels for mention in found):
            return None
        return found[0]


def singular(word: str) -> str:
    """An English word without its plural ending: "dresses" and "dress" both give "dress"."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(SAME_IN_BOTH):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes", "zzes", "oes")) else word[:-1]


def settle_contradictions(
    table: pd.DataFrame, images: ImageSet, captioner: Model, settings: Caption
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Keep, drop or make again the captions that contradict the label of their image, as
    ``settings.contradicting`` says; `table` has a row per image, in their order.

    ``drop`` empties them, so that the prompt is of the class alone. ``recaption`` asks the
    captioner again and tells it the class (`captions_again`); what then still contradicts is
    emptied. Returns the table and a summary: `captions`, `contradicting` as they were made,
    `by_class` of these, and how many were `recaptioned` and `dropped`.
    """
    names = ClassNames.of(images.class_names)
    mentions = _contradictions(table, images, names)
    counts = Counter(images.index["class_name"].iloc[list(mentions)])
    summary = {
        "captions": int((table["caption"] != "").sum()),
        "contradicting": len(mentions),
        "by_class": {name: counts[name] for name in images.class_names if counts[name]},
        "recaptioned": 0,
        "dropped": 0,
    }
    if settings.contradicting == "keep" or not mentions:
        return table, summary
    left = mentions
    if settings.contradicting == "recaption":
        table = _captioned_again(table, mentions, images, captioner, settings)
        left = _contradictions(table, images, names)
    empty = [position for position in mentions if not table["caption"].iloc[position]]
    dropped = sorted({*left, *empty})
    rows = table.index[dropped]
    table = table.assign(
        caption=table["caption"].mask(table.index.isin(rows), ""),
        truncated=table["truncated"].mask(table.index.isin(rows), False),
    )
    made_again = len(mentions) - len(dropped)
    return table, summary | {"recaptioned": made_again, "dropped": len(dropped)}


def _captioned_again(
    table: pd.DataFrame,
    mentions: Mapping[int, Mention],
    images: ImageSet,
    captioner: Model,
    settings: Caption,
) -> pd.DataFrame:
    """The table with new captions of the images at the positions of `mentions`, told their class;
    a captioner that continues a text begins with its own words before the wrong name.
    """
    rows = table.iloc[list(mentions)]
    beginnings = [
        caption.casefold()[: mention.start].strip()
        for caption, mention in zip(rows["caption"], mentions.values(), strict=True)
    ]
    asked = pd.DataFrame(
        {
            "class_names": images.index["class_name"].iloc[list(mentions)].tolist(),
            "beginnings": beginnings,
            "instructions": settings.instruction or "",
        },
        index=list(mentions),
    )
    made = map_images(
        images,
        open_captioner,
        captioner,
        captions_again,
        settings.batch_size,
        "caption",
        asked,
        max_tokens=settings.max_tokens,
    )
    table = table.copy()
    for column, values in made.items():
        table.loc[rows.index, column] = values
    return table


def _contradictions(table: pd.DataFrame, images: ImageSet, names: ClassNames) -> dict[int, Mention]:
    """The contradicting captions by their image's position."""
    captions = table["caption"].tolist()
    found = {
        position: names.contradiction(caption, int(label))
        for position, (caption, label) in enumerate(zip(captions, images.labels, strict=True))
    }
    return {position: mention for position, mention in found.items() if mention}

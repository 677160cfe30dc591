"""The images that an arm trains on, decoded once: the real ones, and the kept ones of its partner
set.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import undecided
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import stack_on_disk
from truelike.training.loop import LabelledImages
from truelike.training.settings import Arm


def load_images(images: ImageSet) -> LabelledImages:
    """Decode a whole image set into the scratch folder."""
    return LabelledImages(stack_on_disk(map(images.pixels, range(len(images)))), images.labels)


def partner_rows(selection: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of the partner's selection table that an arm uses: of its first replicas; undecided
    if it wants all.
    """
    folders = selection["folder"].unique()[: arm.replicas]
    if not arm.selected:
        return pd.concat([undecided(ImageSet(folder)) for folder in folders], ignore_index=True)
    return selection[selection["folder"].isin(folders)]


def load_kept(selection: pd.DataFrame, class_names: Sequence[str]) -> LabelledImages:
    """Decode the images that a selection table keeps into the scratch folder, with the table's
    labels.

    Raises TruelikeError where the sets' class names differ.
    """
    places: list[tuple[ImageSet, int]] = []
    kept_labels: list[int] = []
    for folder, rows in selection[selection["keep"]].groupby("folder", sort=False):
        images = ImageSet(Path(str(folder)))
        if images.class_names != list(class_names):
            raise TruelikeError(
                f"{folder}: its classes are not those of the real training images; run `dvc repro`"
            )
        labels = dict(zip(rows["key"], rows["label"], strict=True))
        places += [(images, position) for position, key in enumerate(images.keys) if key in labels]
        kept_labels += [labels[key] for key in images.keys if key in labels]
    pixels = stack_on_disk(images.pixels(position) for images, position in places)
    return LabelledImages(pixels, np.array(kept_labels, dtype=np.int64))


def check_partner(name: str, arm: Arm, partner: LabelledImages, class_names: Sequence[str]) -> None:
    """Raise TruelikeError if the arm is to train on a partner set in which some class has no image.

    Extra real images may lack a class, as long as the real ones are beside them.
    """
    if not arm.uses_partner or (
        arm.partner == "extra" and all(phase.on != "partner" for phase in arm.phases)
    ):
        return
    counts = np.bincount(partner.labels, minlength=len(class_names))
    missing = [
        class_name for class_name, count in zip(class_names, counts, strict=True) if not count
    ]
    if missing:
        advice = (
            "set data.shots to fewer images, so that some are left over, or take the arm out of "
            "train.arms"
            if arm.partner == "extra"
            else f"lower select.min_class_probability or take {arm.partner!r} out of select.sets"
        )
        raise TruelikeError(
            f"train.arms.{name}: no image of class {missing[0]!r} is left in the partner set "
            f"'{arm.partner}'"
            f"{f' (nor of {len(missing) - 1} more classes)' if len(missing) > 1 else ''}; {advice}"
        )

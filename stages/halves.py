"""Say which shadow of the pipeline sees which half of the real training images, for membership
inference (RF).
"""

import pandas as pd

from stages import run
from truelike.config import load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.tables import write_table
from truelike.paths import HALVES, TRAIN
from truelike.sources.split import halves


def main() -> None:
    privacy = load_params().privacy
    index = ImageSet(TRAIN).index
    rows = index[["key", "class_name"]].to_dict("records")
    members = [
        {"shadow": number, "key": row["key"]}
        for number in privacy.shadows
        for row in halves(
            rows, number // 2, lambda row: row["key"], lambda row: row["class_name"], privacy.seed
        )[number % 2]
    ]
    write_table(HALVES, pd.DataFrame(members, columns=["shadow", "key"]))


if __name__ == "__main__":
    run("halves", main)

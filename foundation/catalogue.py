"""Draws ``data/catalogue``: test images of ``data/fashion`` in the corpus's look, as a style-shift
set.
"""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from foundation import ROOT
from foundation.corpus import draw_attributes, render
from foundation.fashion import SCHEMA, png
from foundation.settings import Settings

FASHION = ROOT.parent / "data" / "fashion" / "data" / "test-00000-of-00001.parquet"
FILE = ROOT.parent / "data" / "catalogue" / "data" / "test-00000-of-00001.parquet"
PER_CLASS = 50
SEED = 9


def rendered() -> pd.DataFrame:
    """The first PER_CLASS test images of each class, rendered: rows of path, label, pixels and
    their attributes.
    """
    rows = pd.DataFrame(pq.read_table(FASHION).to_pylist())
    rows = rows[rows.groupby("label").cumcount() < PER_CLASS].reset_index(drop=True)
    images = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in rows["image"]])
    rng = np.random.default_rng(SEED)
    attributes = draw_attributes(len(rows), Settings.load().corpus, rng)
    pixels = list(render(images, attributes, rng))
    return pd.DataFrame(
        {"path": [cell["path"] for cell in rows["image"]], "label": rows["label"], "pixels": pixels}
    ).join(attributes)


def main() -> None:
    rows = [
        {"image": {"bytes": png(row.pixels), "path": row.path}, "label": row.label}
        for row in rendered().itertuples()
    ]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), FILE)


if __name__ == "__main__":
    main()

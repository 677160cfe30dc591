"""Copies what the pipeline built to where the project ships it: ``models/`` and
``data/fashion/``.
"""

import shutil

from foundation import ROOT
from foundation.paths import FASHION, MODELS


def main() -> None:
    shutil.copytree(MODELS, ROOT.parent / "models", dirs_exist_ok=True)
    shutil.copytree(FASHION, ROOT.parent / "data" / "fashion" / "data", dirs_exist_ok=True)


if __name__ == "__main__":
    main()

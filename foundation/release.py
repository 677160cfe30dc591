"""Copies what the pipeline built to where the project ships it: ``models/``, ``data/fashion/``, and
the logs of the trainings to ``logs/``.
"""

import shutil

from foundation import BUILD, ROOT
from foundation.paths import FASHION, MODELS


def main() -> None:
    shutil.copytree(MODELS, ROOT.parent / "models", dirs_exist_ok=True)
    shutil.copytree(BUILD / "logs", ROOT / "logs", dirs_exist_ok=True)
    shutil.copytree(FASHION, ROOT.parent / "data" / "fashion" / "data", dirs_exist_ok=True)


if __name__ == "__main__":
    main()

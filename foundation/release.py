"""Copies what the pipeline built to where the project ships it: ``models/`` and
``data/fashion/``.
"""

import shutil

from foundation import ROOT, assemble, fashion


def main() -> None:
    shutil.copytree(assemble.DIRECTORY, ROOT.parent / "models", dirs_exist_ok=True)
    shutil.copytree(
        fashion.DIRECTORY, ROOT.parent / "data" / "fashion" / "data", dirs_exist_ok=True
    )


if __name__ == "__main__":
    main()

"""Builds the embedded data set and the small foundation models that truelike ships, from public
data.
"""

from pathlib import Path

import truelike  # noqa: F401  (lets torchvision be imported beside a CPU-only torch)

ROOT = Path(__file__).parent
BUILD = ROOT / "build"

"""One module per stage of dvc.yaml; each reads its parameters, calls the library and writes its
outs.
"""

import gc
import sys
from pathlib import Path

if (
    sys.argv[0] == "-m"
):  # `python -m stages.x` begins to import: what the imports make stays, there is no garbage yet
    gc.disable()

# `dvc exp run --queue` runs a stage in a copy of the project, while an editable install would
# import the main checkout's library: the copy's own code goes first.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from truelike.runtime.stage import named, numbered, run

__all__ = ["named", "numbered", "run"]

"""The waterfall: accuracy from naive synthetic images to real ones, and what closing each gap
brings.
"""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from truelike.reporting.settings import Rung


def waterfall_steps(rungs: Sequence[Rung], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The steps from each rung's arm to the next, and from the last to the arm `real`.

    Rows of arm, against, closes, points, low, high out of `comparisons`. Arms that were not trained
    are passed over; there is no row without any.
    """
    known = {
        (row["arm"], row["against"]): (row["points"], row["low"], row["high"])
        for row in comparisons.to_dict("records")
    }
    trained = {arm for pair in known for arm in pair}
    climbed = [rung for rung in rungs if rung.arm in trained]
    rows = []
    for before, rung in pairwise([*climbed, Rung(arm="real")]):
        arm, against = rung.arm, before.arm
        if (arm, against) in known:
            value, low, high = known[arm, against]
        else:
            value, high, low = (-number for number in known[against, arm])
        rows.append((arm, against, rung.closes or "", value, low, high))
    return pd.DataFrame(rows, columns=["arm", "against", "closes", "points", "low", "high"])


def gains_by_gap(steps: pd.DataFrame) -> dict[str, dict[str, float]]:
    """What closing each gap brings, by gap: points, low and high; empty where no step closes one
    alone.
    """
    return {
        row["closes"]: {name: row[name] for name in ("points", "low", "high")}
        for row in steps.to_dict("records")
        if row["closes"]
    }

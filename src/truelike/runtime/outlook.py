"""How far the pipeline is: the stages still to come, from dvc.lock, and how long they took last
time, from the ledger.
"""

import re
from collections import defaultdict
from pathlib import Path

from truelike.runtime.ledger import ledger_rows

LOCK_FILE = Path("dvc.lock")


def outlook(stage: str) -> str:
    """One line about the stage that starts: its number among those of this run, and the time left.

    This run's stages are those that finished since the last stage that follows from this one; those
    to come follow from what has run, or are further instances of it. Empty without a record of an
    earlier run. DVC may skip some of them, so both numbers are upper bounds.
    """
    followers = _followers(LOCK_FILE)
    if stage not in followers:
        return ""
    ran = [(row["stage"], row["seconds"]) for row in ledger_rows()]
    done: list[str] = []
    for name, _ in reversed(ran):
        if name == stage or name in followers[stage]:
            break
        done.append(name)
    begun = {stage, *done}
    kinds = {name.split("@")[0] for name in begun}
    coming = {name for name in followers if name.split("@")[0] in kinds}
    coming |= {later for name in begun | coming for later in followers.get(name, ())}
    coming -= begun
    seconds = dict(ran)
    left = sum(seconds.get(name, 0.0) for name in {stage, *coming})
    known = f", about {_duration(left)} left by the last run" if left else ""
    return f"{stage}: stage {len(begun)} of up to {len(begun | coming)}{known}"


def _followers(lock_file: Path) -> dict[str, set[str]]:
    """The stages that follow from each stage in dvc.lock, directly or not.

    The file is read line by line: a YAML parser would take longer than many a stage.
    """
    if not lock_file.exists():
        return {}
    paths: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"deps": [], "outs": []})
    stage = part = ""
    for line in lock_file.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"  (\S+):", line):
            stage = found[1]
        elif found := re.fullmatch(r"    (\w+):", line):
            part = found[1]
        elif part in ("deps", "outs") and (found := re.fullmatch(r"    - path: (.+)", line)):
            paths[stage][part].append(found[1])
    uses = {
        name: {
            other
            for other, theirs in paths.items()
            if any(_overlap(out, dep) for out in own["outs"] for dep in theirs["deps"])
        }
        for name, own in paths.items()
    }
    return {name: _reach(name, uses) for name in uses}


def _reach(start: str, uses: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = uses[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def _overlap(out: str, dep: str) -> bool:
    return f"{dep}/".startswith(f"{out}/") or f"{out}/".startswith(f"{dep}/")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

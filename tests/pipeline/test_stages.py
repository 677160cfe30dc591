"""What every stage's process has in common."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BATCHES = """
import resource
import sys
from pathlib import Path

import numpy as np
from stages import run

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def main():
    counts = []
    for batch in range(6):
        [np.ones(3 * 2**20) for array in range(3)]
        counts.append(page_faults())
    print(counts[-1] - counts[0])

main() if sys.argv[1:] else run("toy", main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_stage_faults_no_page_in_twice(tmp_path: Path) -> None:
    def page_faults(*arguments: str) -> int:
        command = [sys.executable, "-c", BATCHES, *arguments]
        made = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        )
        return int(made.stdout)

    assert page_faults() * 10 < page_faults("outside of a stage")


WAITING = """
import time
from stages import run

def main():
    print("at work", flush=True)
    time.sleep(60)

run("toy", main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_a_signal_stops_says_what_to_do_next(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert f"toy: stopped by {signal.Signals(number).name}; what is finished is kept" in error
    assert "`dvc repro`" in error

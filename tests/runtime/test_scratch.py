"""Work in progress: finished or not at all, checked before it is used again, one writer, and a full
disk said so.
"""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from truelike.imageset.tables import write_table
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime import scratch as scratch_module
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import (
    finished,
    only_writer,
    publish,
    scratch,
    stack_on_disk,
    write_finished,
    write_once,
)

ROOT = Path(__file__).resolve().parents[2]


def put(data: bytes):
    return lambda path: path.write_bytes(data)


def test_a_damaged_or_truncated_file_is_not_finished_and_is_named(tmp_path, capsys):
    file = tmp_path / "shard-00000.tar"
    assert not finished(file)
    write_finished(file, put(b"all of it"))
    assert finished(file)
    assert capsys.readouterr().err == ""
    for damaged in (b"all of iu", b"all of", b""):
        file.write_bytes(damaged)
        assert not finished(file)
        assert (
            f"{file}: damaged, it does not match its sha256; it is made again"
            in capsys.readouterr().err
        )


def test_a_kill_before_the_rename_leaves_the_older_version_finished(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint.pt"
    write_finished(file, put(b"step 50"))

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for step in (b"step 100", b"step 150"):
            with pytest.raises(KeyboardInterrupt):
                write_finished(file, put(step))
            assert file.read_bytes() == b"step 50"
            assert finished(file)
    write_finished(file, put(b"step 100"))
    assert finished(file)


def test_a_first_version_that_was_never_renamed_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        write_finished(tmp_path / "file", put(b"x"))
    assert not finished(tmp_path / "file")


def test_a_second_writer_waits_a_little_and_is_refused_with_the_first_ones_process(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(scratch_module, "PATIENCE", 0.3)
    start = time.monotonic()
    with scratch("adapt", "abc"):
        refused = pytest.raises(
            TruelikeError,
            match=rf"adapt/abc/\.lock: process {os.getpid()}, or one that it started, is writing",
        )
        with refused, scratch("adapt", "abc"):
            pass
        assert time.monotonic() - start > 0.3
        with scratch("adapt", "other settings"):
            pass
    with scratch("adapt", "abc"):
        pass


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk on which no file can be larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_and_leaves_nothing_partial(tmp_path, monkeypatch):
    file = tmp_path / "shard-00000.tar"
    with (
        largest_file(1000),
        pytest.raises(TruelikeError, match=r"shard-00000\.tar: cannot be written \(File too large"),
    ):
        write_once(file, put(bytes(2000)))
    assert list(tmp_path.iterdir()) == []
    noise = np.random.default_rng(0).random(1000)
    with (
        largest_file(1000),
        pytest.raises(TruelikeError, match=r"captions\.parquet: cannot be written"),
    ):
        write_table(tmp_path / "captions.parquet", pd.DataFrame({"key": noise}))
    assert list(tmp_path.iterdir()) == []
    samples = [Sample("k", 0, np.zeros((4, 4, 3), np.uint8))]
    with largest_file(1000), pytest.raises(TruelikeError, match="train: cannot be written"):
        write_image_set(tmp_path / "train", samples, ["a"])
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with largest_file(1000), pytest.raises(TruelikeError, match=r"\.work: cannot be written"):
        stack_on_disk(np.zeros((50, 4, 4, 3), np.uint8))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_read_only_or_full_output_is_named(tmp_path, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(b"kept")
    monkeypatch.setattr(scratch_module.os, "link", refuse)
    monkeypatch.setattr(scratch_module.shutil, "copyfile", refuse)
    with pytest.raises(
        TruelikeError, match=rf"out: cannot be written \({os.strerror(number)}\).*is kept"
    ):
        publish([tmp_path / "file"], tmp_path / "out")
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_once(tmp_path / "nowhere/file", put(b""))


STAGE = """
import sys, time
from pathlib import Path
from stages import run
from truelike.runtime.scratch import publish, scratch, write_finished, finished

def main():
    with scratch("toy", "abc") as folder:
        for step in range(300):
            file = folder / f"{step}"
            if not finished(file):
                write_finished(file, lambda path: path.write_text("x" * step))
                time.sleep(0.02)
        publish(sorted(folder.glob("[0-9]")), Path("outputs/toy"))

run("toy", main)
"""


def start(project: Path) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [sys.executable, "-c", STAGE]
    # A shell's background job ignores SIGINT, and so would what it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )


def steps(project: Path) -> list[Path]:
    return [file for file in project.glob(".work/toy/abc/*") if file.name.isdigit()]


def reached(project: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not (project / f".work/toy/abc/{step}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_stage_that_is_killed_by_any_signal_at_any_point_fails_and_resumes(tmp_path):
    draw = np.random.default_rng(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        stage = start(tmp_path)
        reached(tmp_path, len(steps(tmp_path)) + int(draw.integers(0, 20)))
        stage.send_signal(number)
        stage.communicate()
        assert stage.returncode != 0
        assert not (tmp_path / "outputs").exists()
    made = {file: file.stat().st_mtime_ns for file in steps(tmp_path)}
    assert 0 < len(made) < 300
    stage = start(tmp_path)
    stage.communicate()
    assert stage.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert len(steps(tmp_path)) == 300
    assert [(tmp_path / f"outputs/toy/{step}").read_text() for step in range(10)] == [
        "x" * step for step in range(10)
    ]


@pytest.mark.slow
def test_an_orphan_that_still_runs_keeps_its_successor_out(tmp_path):
    orphan = start(tmp_path)
    reached(tmp_path, 1)
    orphan.send_signal(signal.SIGSTOP)
    successor = start(tmp_path)
    _, said = successor.communicate()
    assert successor.returncode == 1
    assert (
        f"toy: .work/running/toy: process {orphan.pid}, or one that it started, is writing here"
        in said
    )
    orphan.send_signal(signal.SIGCONT)
    orphan.communicate()
    assert orphan.returncode == 0
    assert (tmp_path / "outputs/toy/9").read_text() == "x" * 9


def test_the_lock_of_a_process_that_has_ended_does_not_matter(tmp_path):
    (tmp_path / "lock").write_text("99999999")
    with only_writer(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())

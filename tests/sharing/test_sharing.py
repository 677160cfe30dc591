"""What docs/sharing.md says, done: remotes, colleagues, consumers, and what breaks between them."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import truelike
from truelike.imageset.reading import ImageSet, verify
from truelike.runtime.errors import TruelikeError
from truelike.sharing.repair import discard_damaged

MAKE = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {source!r})
from truelike.imageset.writing import Sample, write_image_set

replica, shade = int(sys.argv[1]), int(Path("shade").read_text())
with Path({log!r}).open("a") as log:
    log.write(f"{{replica}}\\n")
draw = np.random.default_rng([replica, shade])
samples = [
    Sample(
        f"k{{n}}-r{{replica}}",
        n % 2,
        draw.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        {{"source_key": f"k{{n}}"}},
    )
    for n in range(6)
]
write_image_set(Path("outputs/synthetic") / str(replica), samples, ["boot", "bag"], shard_size=2)
"""
PIPELINE = """
stages:
  synthesize:
    matrix:
      replica: [0, 1]
    cmd: python make.py ${item.replica}
    deps: [make.py, shade]
    outs: ["outputs/synthetic/${item.replica}"]
artifacts:
  synthetic:
    path: outputs/synthetic
    type: dataset
"""
WHO = {
    f"GIT_{role}_{what}": "t@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def git(*words: str, cwd: Path, ok: bool = True) -> str:
    done = subprocess.run(
        ["git", *words], cwd=cwd, env=os.environ | WHO, capture_output=True, text=True
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout


def dvc(*words: str, cwd: Path, ok: bool = True) -> None:
    """The `dvc` command, in this process to save its imports."""
    from dvc.cli import main

    with contextlib.chdir(cwd):
        assert (main(["-q", *words]) == 0) == ok, words


@pytest.fixture(autouse=True)
def _python_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project at tag v1 with two replicas, pushed with its run-cache to a directory; no test
    changes it.
    """
    world = tmp_path_factory.mktemp("world")
    project = world / "project"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/config").write_text("[core]\n    analytics = false\n    autostage = true\n")
    (project / ".dvc/.gitignore").write_text("/tmp\n/cache\n/config.local\n")
    (project / "dvc.yaml").write_text(PIPELINE)
    source = str(Path(truelike.__file__).parent.parent)
    (project / "make.py").write_text(MAKE.format(source=source, log=str(world / "made")))
    (project / "shade").write_text("1\n")
    (project / ".gitignore").write_text("/outputs/\n")
    git("init", "-q", "-b", "main", cwd=project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        dvc("remote", "add", "-d", "storage", str(world / "remote"), cwd=project)
        dvc("repro", cwd=project)
        git("add", "-A", cwd=project)
        git("commit", "-qm", "A run", cwd=project)
        git("tag", "v1", cwd=project)
        git("tag", "-a", "synthetic@v1.0.0", "-m", "first", cwd=project)
        dvc("push", "--run-cache", cwd=project)
    return world


def clone(world: Path, folder: Path) -> Path:
    git("clone", "-q", str(world / "project"), str(folder), cwd=world)
    return folder


def made(world: Path) -> int:
    return len((world / "made").read_text().split())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_colleague_pulls_everything_and_repro_recomputes_nothing(world, tmp_path):
    before, theirs = made(world), clone(world, tmp_path / "theirs")
    dvc("pull", "--run-cache", cwd=theirs)
    assert contents(theirs / "outputs/synthetic") == contents(world / "project/outputs/synthetic")
    assert [verify(theirs / f"outputs/synthetic/{replica}") for replica in (0, 1)] == [[], []]
    dvc("repro", cwd=theirs)
    (theirs / "dvc.lock").unlink()
    shutil.rmtree(theirs / "outputs")
    dvc("repro", cwd=theirs)  # from the run-cache
    assert contents(theirs / "outputs/synthetic/1") == contents(
        world / "project/outputs/synthetic/1"
    )
    assert made(world) == before


def test_one_replica_at_a_tag_in_another_project(world, tmp_path):
    url, expected = str(world / "project"), contents(world / "project/outputs/synthetic/1")
    dvc("get", url, "outputs/synthetic/1", "--rev", "v1", "-o", "got", cwd=tmp_path)
    assert contents(tmp_path / "got") == expected
    other = tmp_path / "other"
    (other / ".dvc").mkdir(parents=True)
    (other / ".dvc/config").write_text("[core]\n    analytics = false\n")
    git("init", "-q", cwd=other)
    dvc("import", url, "outputs/synthetic/1", "--rev", "v1", "-o", "synthetic", cwd=other)
    assert contents(other / "synthetic") == expected
    assert "rev: v1" in (other / "synthetic.dvc").read_text()
    assert truelike.load(other / "synthetic")[0][0].shape == (3, 8, 8)
    dvc(
        "artifacts",
        "get",
        url,
        "synthetic",
        "--rev",
        "v1.0.0",
        "-o",
        str(tmp_path / "artifact"),
        cwd=tmp_path,
    )
    assert contents(tmp_path / "artifact") == contents(world / "project/outputs/synthetic")


def test_load_reads_any_replica_of_a_url_at_a_revision(world):
    project = world / "project"
    local = truelike.load(project)
    assert len(local) == 12
    assert local.class_names == ["boot", "bag"]
    streamed = truelike.load(str(project), rev="v1", replica=1)
    assert len(streamed) == 6
    for position in (5, 0, 3, -1):
        image, label = streamed[position]
        assert image.shape == (3, 8, 8)
        assert (image == local[position % 6 + 6][0]).all()
        assert label == local[position % 6 + 6][1]
    rows = list(truelike.load(project).rows())
    assert [row["key"] for row, _ in rows] == [
        f"k{n}-r{replica}" for replica in (0, 1) for n in range(6)
    ]
    assert (rows[7][1] == ImageSet(project / "outputs/synthetic/1").pixels(1)).all()
    with pytest.raises(IndexError):
        local[12]
    assert truelike.load(project, transform=lambda image: image.sum())[0][0].ndim == 0


def test_a_data_loader_with_workers_reads_what_one_process_reads(world):
    images = truelike.load(world / "project")
    images[0]  # a shard is open before the workers are forked
    batches = list(DataLoader(images, batch_size=4, num_workers=2))
    found = np.concatenate([batch.numpy() for batch, _ in batches])
    assert (found == np.stack([images[n][0].numpy() for n in range(12)])).all()


class Ranges(SimpleHTTPRequestHandler):
    """A read-only file server that answers range requests, and remembers what was asked."""

    asked: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        type(self).asked.append(self.path)
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        if wanted := self.headers.get("Range"):
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])


@contextlib.contextmanager
def served(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_read_only_http_remote_is_pulled_and_streamed(world, tmp_path):
    Ranges.asked = []
    theirs = clone(world, tmp_path / "theirs")
    with served(world / "remote", Ranges) as url:
        dvc("remote", "add", "-d", "-f", "storage", url, cwd=theirs)
        git("commit", "-qam", "By HTTP", cwd=theirs)
        images = truelike.load(str(theirs), rev="main", replica=0)
        expected = ImageSet(world / "project/outputs/synthetic/0")
        assert (images[3][0].numpy().transpose(1, 2, 0) == expected.pixels(3)).all()
        asked = {path for path in Ranges.asked if not path.endswith(".dir")}
        assert len(asked) == 3, asked  # the index, its sums and one of three shards
        dvc("pull", cwd=theirs)
    assert contents(theirs / "outputs/synthetic") == contents(world / "project/outputs/synthetic")
    assert (truelike.load(theirs)[3][0] == images[3][0]).all()  # pulled, so no server is needed


@pytest.fixture(scope="module")
def bucket(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project at tag s3 whose remote is a bucket behind an S3 API server, pushed there with its
    run-cache.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    project = clone(world, tmp_path_factory.mktemp("s3") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for name, value in (
            ("ACCESS_KEY_ID", "key"),
            ("SECRET_ACCESS_KEY", "secret"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        dvc("pull", "--run-cache", cwd=project)
        dvc("remote", "add", "-d", "-f", "storage", "s3://bucket/truelike", cwd=project)
        dvc("remote", "modify", "storage", "endpointurl", f"http://{host}:{port}", cwd=project)
        dvc("push", "--run-cache", cwd=project)
        git("commit", "-qam", "By S3", cwd=project)
        git("tag", "s3", cwd=project)
        yield project
    server.stop()


def test_a_colleague_pulls_from_s3_and_repro_recomputes_nothing(world, bucket, tmp_path):
    before, theirs = made(world), clone(bucket.parent, tmp_path / "theirs")
    assert "s3://bucket/truelike" in (theirs / ".dvc/config").read_text()
    dvc("pull", "--run-cache", cwd=theirs)
    assert contents(theirs / "outputs/synthetic") == contents(world / "project/outputs/synthetic")
    (theirs / "dvc.lock").unlink()
    shutil.rmtree(theirs / "outputs")
    dvc("repro", cwd=theirs)  # from the run-cache
    assert contents(theirs / "outputs/synthetic") == contents(world / "project/outputs/synthetic")
    assert made(world) == before
    (theirs / "shade").write_text("7\n")
    dvc("repro", "synthesize@1", cwd=theirs)
    git("commit", "-qam", "Another shade", cwd=theirs)
    dvc("push", "--run-cache", cwd=theirs)
    (bucket / "shade").write_text("7\n")
    before = made(world)
    dvc("repro", "--pull", "synthesize@1", cwd=bucket)  # what they made, by the settings alone
    assert made(world) == before
    assert contents(bucket / "outputs/synthetic/1") == contents(theirs / "outputs/synthetic/1")
    git("checkout", "-q", "shade", "dvc.lock", cwd=bucket)


def test_one_replica_at_a_tag_comes_from_s3_whole_or_streamed(world, bucket, tmp_path, caplog):
    expected, theirs = (
        world / "project/outputs/synthetic/1",
        str(clone(bucket.parent, tmp_path / "theirs")),
    )
    with caplog.at_level("INFO", "werkzeug"):
        images = truelike.load(theirs, rev="s3", replica=1)
        assert (images[3][0].numpy().transpose(1, 2, 0) == ImageSet(expected).pixels(3)).all()
    read = set(
        re.findall(r"GET (/bucket/truelike/files/\S+[^r]) HTTP.* 206", caplog.text)
    )  # by range, and no .dir
    assert len(read) == 3  # the index, its sums and one of three shards
    dvc("get", theirs, "outputs/synthetic/1", "--rev", "s3", "-o", "got", cwd=tmp_path)
    assert contents(tmp_path / "got") == contents(expected)
    other = tmp_path / "other"
    (other / ".dvc").mkdir(parents=True)
    (other / ".dvc/config").write_text("[core]\n    analytics = false\n")
    git("init", "-q", cwd=other)
    dvc("import", theirs, "outputs/synthetic/1", "--rev", "s3", "-o", "synthetic", cwd=other)
    assert contents(other / "synthetic") == contents(expected)


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    theirs = clone(bucket.parent, tmp_path / "theirs")
    dvc("remote", "modify", "storage", "url", "s3://elsewhere/truelike", cwd=theirs)
    with pytest.raises(TruelikeError, match=r"theirs: cannot be read .*was pushed"):
        truelike.load(theirs, replica=0)


def test_what_cannot_be_loaded_is_named(world, tmp_path):
    project = str(world / "project")
    with pytest.raises(TruelikeError, match=r"nowhere.*cannot be read at its default branch"):
        truelike.load(str(tmp_path / "nowhere"))
    with pytest.raises(TruelikeError, match=r"cannot be read at v9"):
        truelike.load(project, rev="v9")
    with pytest.raises(TruelikeError, match=r"cannot be read at v1 .*outputs/synthetic/7"):
        truelike.load(project, rev="v1", replica=7)
    with pytest.raises(TruelikeError, match="not both"):
        truelike.load(project, replica=0, split="test")
    with pytest.raises(TruelikeError, match="is one image set"):
        truelike.load(world / "project/outputs/synthetic/0", replica=0)
    theirs = clone(world, tmp_path / "theirs")
    dvc("remote", "modify", "storage", "url", str(tmp_path / "gone"), cwd=theirs)
    with pytest.raises(TruelikeError, match=r"theirs: cannot be read .*was pushed"):
        truelike.load(theirs, replica=0)


def test_a_pull_with_one_object_missing_brings_the_rest_and_repro_makes_what_is_missing(
    world, tmp_path
):
    theirs = clone(world, tmp_path / "theirs")
    shutil.copytree(world / "remote", tmp_path / "remote")
    dvc("remote", "modify", "storage", "url", str(tmp_path / "remote"), cwd=theirs)
    shard = world / "project/outputs/synthetic/1/shard-00001.tar"
    lost = [
        path
        for path in (tmp_path / "remote").rglob("*")
        if path.is_file() and path.read_bytes() == shard.read_bytes()
    ]
    lost[0].unlink()
    dvc("pull", cwd=theirs, ok=False)
    before = made(world)
    dvc("repro", cwd=theirs)
    assert (world / "made").read_text().split()[before:] == ["1"]
    assert contents(theirs / "outputs/synthetic") == contents(world / "project/outputs/synthetic")


def test_an_unreachable_remote_loses_nothing(world, tmp_path):
    theirs = clone(world, tmp_path / "theirs")
    dvc("pull", cwd=theirs)
    before = contents(theirs / "outputs")
    dvc("remote", "add", "-d", "-f", "storage", "http://127.0.0.1:9/nothing", cwd=theirs)
    dvc("push", cwd=theirs, ok=False)
    assert contents(theirs / "outputs") == before


def test_a_flipped_bit_is_found_discarded_and_only_its_set_is_restored(world, tmp_path):
    theirs = clone(world, tmp_path / "theirs")
    dvc("config", "cache.type", "hardlink", cwd=theirs)
    dvc("pull", cwd=theirs)
    folder = theirs / "outputs/synthetic/1"
    shard = folder / "shard-00001.tar"
    sound = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])  # in DVC's cache too: it is the same file
    shard.chmod(0o444)
    assert any(
        "shard-00001.tar: does not match its sha256" in problem for problem in verify(folder)
    )
    (folder / ".DS_Store").write_bytes(b"x")
    removed = [path.name for path in discard_damaged(folder) if path.parent == folder]
    assert removed == [".DS_Store", shard.name]  # by DVC's cache SHA256SUMS is sound
    dvc("pull", cwd=theirs)
    assert shard.read_bytes() == sound
    assert verify(folder) == []


def test_damaged_sums_are_discarded_alone(world, tmp_path):
    theirs = clone(world, tmp_path / "theirs")
    dvc("config", "cache.type", "hardlink", cwd=theirs)
    dvc("pull", cwd=theirs)
    folder = theirs / "outputs/synthetic/1"
    before = contents(folder)
    sums = folder / "SHA256SUMS"
    sums.chmod(0o644)
    sums.write_bytes(b"nothing")
    assert {path.name for path in discard_damaged(folder) if path.parent == folder} == {sums.name}
    assert discard_damaged(folder) == []  # without sums nothing is known to be damaged
    dvc("pull", cwd=theirs)
    assert contents(folder) == before


def test_two_people_change_the_same_stage(world, tmp_path):
    """Merge the settings by hand, take either dvc.lock, `dvc repro`."""
    one, two = clone(world, tmp_path / "one"), clone(world, tmp_path / "two")
    for place, shade in ((one, "2\n"), (two, "3\n")):
        dvc("pull", cwd=place)
        (place / "shade").write_text(shade)
        dvc("repro", cwd=place)
        git("commit", "-qam", f"Shade {shade}", cwd=place)
    git("pull", "-q", "--no-rebase", str(one), "main", cwd=two, ok=False)
    assert "<<<<<<<" in (two / "dvc.lock").read_text()
    dvc("repro", cwd=two, ok=False)  # a lock with conflict marks is refused
    (two / "shade").write_text("3\n")
    git("checkout", "--theirs", "dvc.lock", cwd=two)
    before = made(world)
    dvc("repro", cwd=two)
    assert made(world) == before  # the run with shade 3 is in two's run-cache
    git("add", "-A", cwd=two)
    git("commit", "-qm", "Merge", cwd=two)
    assert git("diff", "HEAD~1", "--", "dvc.lock", cwd=two) == ""


def test_a_run_with_a_dirty_tree_is_noticed_by_the_next_person(world, tmp_path):
    one = clone(world, tmp_path / "one")
    dvc("pull", cwd=one)
    (one / "shade").write_text("99\n")
    dvc("repro", cwd=one)
    git("add", "dvc.lock", cwd=one)
    git("commit", "-qm", "A result without the change that made it", cwd=one)
    git("stash", "-q", cwd=one)
    before = made(world)
    from dvc.repo import Repo

    with contextlib.chdir(one), Repo() as repo:
        status = repo.status()
    assert set(status) == {"synthesize@0", "synthesize@1"}
    assert {"changed deps": {"shade": "modified"}} in status["synthesize@0"]
    assert made(world) == before

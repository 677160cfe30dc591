"""The image set: what goes in comes out, anyone's tar reads it, and every damaged byte is found."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from truelike.imageset import reading
from truelike.imageset.checks import SUMS_FILE, write_sums
from truelike.imageset.reading import INDEX_FILE, ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import stack_on_disk

NAMES = ["boot", "großer Hut"]
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def make(folder, shapes, shard_size=3, **columns):
    draw = np.random.default_rng(len(shapes))
    samples = [
        Sample(
            f"k{n}",
            n % 2,
            draw.integers(0, 256, (*shape, 3), dtype=np.uint8),
            {"seed": 2**40 + n} | columns,
        )
        for n, shape in enumerate(shapes)
    ]
    write_image_set(folder, iter(samples), NAMES, shard_size)
    return samples, ImageSet(folder)


@settings(max_examples=25, deadline=None)
@given(st.lists(SHAPES, min_size=1, max_size=9), st.integers(1, 4))
def test_round_trip_by_offset_and_by_stock_tarfile(tmp_path_factory, shapes, shard_size):
    folder = tmp_path_factory.mktemp("set")
    samples, images = make(folder, shapes, shard_size)
    assert images.class_names == NAMES
    assert images.keys == [sample.key for sample in samples]
    assert images.index["seed"].tolist() == [sample.columns["seed"] for sample in samples]
    assert len(list(folder.glob("*.tar"))) == -(-len(samples) // shard_size)
    for position, sample in enumerate(samples):
        row = images.index.iloc[position]
        assert (images.pixels(position) == sample.pixels).all()
        with tarfile.open(folder / row["shard"]) as archive:
            png = archive.extractfile(f"{sample.key}.png").read()
            metadata = json.load(archive.extractfile(f"{sample.key}.json"))
        assert png == images.png(position)
        assert hashlib.sha256(png).hexdigest() == row["sha256"]
        assert (row["height"], row["width"]) == sample.pixels.shape[:2]
        assert (
            metadata
            == {"key": sample.key, "label": sample.label, "class_name": NAMES[sample.label]}
            | sample.columns
        )
    assert images.problems() == []


def test_bytes_are_the_same_every_time(tmp_path):
    make(tmp_path / "one", [(8, 8)] * 5)
    make(tmp_path / "two", [(8, 8)] * 5)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_every_damaged_byte_of_a_shard_is_found_even_where_its_sum_is_made_to_fit(tmp_path):
    _, images = make(tmp_path, [(4, 4)] * 2, caption=None)
    assert images.problems() == []
    shard = tmp_path / "shard-00000.tar"
    sound = shard.read_bytes()
    with tarfile.open(shard) as archive:
        contents = [(m.offset_data, m.offset_data + m.size) for m in archive]
        headers = [(m.offset, m.offset + 512) for m in archive]
    for start, stop in contents + headers:
        for place in range(start, stop, 7):
            damaged = bytearray(sound)
            damaged[place] ^= 1
            shard.write_bytes(damaged)
            write_sums(tmp_path / SUMS_FILE, [tmp_path / INDEX_FILE, shard])
            assert ImageSet(tmp_path).problems(), f"byte {place}"


def test_missing_truncated_and_foreign_shards(tmp_path):
    make(tmp_path, [(8, 8)] * 6)
    (tmp_path / "shard-00009.tar").write_bytes(b"")
    assert "not in the index" in ImageSet(tmp_path).problems()[0]
    (tmp_path / "shard-00009.tar").unlink()
    shard = tmp_path / "shard-00001.tar"
    shard.write_bytes(shard.read_bytes()[:1200])
    assert any("truncated" in problem for problem in ImageSet(tmp_path).problems())
    shard.unlink()
    assert any("shard is missing" in problem for problem in ImageSet(tmp_path).problems())


def test_duplicate_keys_and_foreign_directories(tmp_path):
    sample = Sample("same", 0, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(TruelikeError, match="duplicate image key 'same'"):
        write_image_set(tmp_path / "set", [sample, sample], NAMES)
    with pytest.raises(TruelikeError, match="not an image set"):
        ImageSet(tmp_path)
    (tmp_path / INDEX_FILE).write_bytes(b"no parquet")
    write_sums(tmp_path / SUMS_FILE, [tmp_path / INDEX_FILE])
    with pytest.raises(TruelikeError, match="not the index of an image set"):
        ImageSet(tmp_path)


def test_empty_set(tmp_path):
    write_image_set(tmp_path, [], NAMES)
    images = ImageSet(tmp_path)
    assert len(images) == 0
    assert images.class_names == NAMES
    assert images.problems() == []
    assert list(images.batches(4)) == []


def anonymous():
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def test_a_stack_on_disk_equals_one_in_memory_takes_none_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    draw = np.random.default_rng(0)
    latents = draw.standard_normal((5, 4, 2, 3), np.float32)
    assert (stack_on_disk(iter(latents)) == latents).all()
    image = draw.integers(0, 256, (64, 64, 3), np.uint8)
    opened, before = psutil.Process().num_fds(), anonymous()
    stacked = stack_on_disk(np.roll(image, number) for number in range(4000))
    assert stacked.nbytes == 4000 * 64 * 64 * 3
    assert all((stacked[number] == np.roll(image, number)).all() for number in range(4000))
    assert anonymous() - before < stacked.nbytes / 4
    assert list(Path(".work").iterdir()) == []
    del stacked
    assert psutil.Process().num_fds() <= opened
    assert stack_on_disk([]).shape == (0, 1, 1, 3)
    with pytest.raises(ValueError, match="one shape"):
        stack_on_disk([image, image[1:]])


def test_datasets_reads_the_shards_as_webdataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    samples, images = make(tmp_path / "set", [(8, 8)] * 5)
    shards = sorted(str(path) for path in images.folder.glob("*.tar"))
    rows = datasets.load_dataset(
        "webdataset", data_files={"train": shards}, split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("png", datasets.Image(decode=False))
    assert [row["__key__"] for row in rows] == images.keys
    first = np.asarray(Image.open(io.BytesIO(rows[0]["png"]["bytes"])))
    assert (first == samples[0].pixels).all()


def test_few_shards_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "OPEN_SHARDS", 3)
    samples, images = make(tmp_path / "set", [(4, 4)] * 12, shard_size=1)
    before = psutil.Process().num_fds()
    for position in [*range(12), *range(12)]:
        assert (images.pixels(position) == samples[position].pixels).all()
        assert psutil.Process().num_fds() <= before + 3

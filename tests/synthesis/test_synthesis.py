import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.jobs import OFF, PROMPTS, SETTINGS, contents
from truelike.generator.adapter import Adapter
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import scratch
from truelike.synthesis.jobs import SynthesisJob, without
from truelike.synthesis.plan import Learned, batches, image_seed, make_plan
from truelike.synthesis.regenerate import regenerate
from truelike.synthesis.run import open_renderer, plan_of, replica_key, synthesize


def test_a_job_without_a_piece_makes_its_images_without_it(
    job: SynthesisJob, real: ImageSet
) -> None:
    whole, bare = plan_of(job, real, 0), plan_of(without(("caption", "prior"), job), real, 0)
    assert set(bare["strength"]) == {1.0} != set(whole["strength"])
    assert set(bare["caption_key"]) == {""} != set(whole["caption_key"])
    assert bare["seed"].tolist() == whole["seed"].tolist()
    assert (
        without(("style", "adapter"), job).style,
        without(("style", "adapter"), job).adapter,
    ) == (None, None)
    assert replace(without((), job), stage="synthesize") == job


# The plan


def plan(
    keys: list[str],
    captions: list[str],
    replica: int,
    seed: int = 0,
    rewrites: list[list[str]] | None = None,
) -> pd.DataFrame:
    table = pd.DataFrame({"key": keys, "label": 0, "class_name": "boot", "caption": captions})
    table["rewrites"] = rewrites or [[] for _ in keys]
    table["style"] = "<style>"
    chosen = SETTINGS.model_copy(update={"seed": seed})
    return make_plan(table, PROMPTS, chosen, OFF, replica, Learned("g", "a", "s"))


def test_a_row_by_hand() -> None:
    rows = plan(["k1", "k2"], ["a red boot", ""], replica=3).to_dict("records")
    assert rows[0] == {
        "key": "k1-r3",
        "label": 0,
        "prompt": "a boot, a red boot <style> best",
        "caption_key": "k1",
        "source_key": "k1",
        "seed": image_seed(0, 3, "k1"),
        "split": "synthetic",
        "negative_prompt": "bad",
        "replica": 3,
        "generator": "g",
        "adapter": "a",
        "style": "s",
        "sampler": "unipc",
        "steps": 4,
        "guidance_scale": 2.0,
        "guidance_low": 0.0,
        "guidance_high": 1.0,
        "strength": 0.75,
        "lora_scale": 1.0,
        "visual_guidance": "off",
    }
    assert rows[1]["prompt"] == "a boot <style> best"
    assert rows[1]["caption_key"] == ""


def test_a_replica_uses_its_rewrite_and_says_which() -> None:
    rewrites = [["boot, red", "crimson boot"], []]
    rows = plan(["k1", "k2"], ["a red boot", "a boot"], replica=3, rewrites=rewrites)
    assert rows["prompt"].tolist() == [
        "a boot, crimson boot <style> best",
        "a boot, a boot <style> best",
    ]
    assert rows["caption_key"].tolist() == ["k1/1", "k2"]


def contexts(table: pd.DataFrame, how: str, replica: int = 0) -> pd.Series:
    """The caption keys of a plan by source key."""
    prompts = PROMPTS.model_copy(update={"context": how})
    rows = make_plan(table, prompts, SETTINGS, OFF, replica, Learned("g"))
    texts = dict(zip(table["key"], table["caption"], strict=True))
    for row in rows.to_dict("records"):
        own = texts.get(row["caption_key"], "")
        assert row["prompt"] == f"a boot{', ' if own else ''}{own} best"
    return rows.set_index("source_key")["caption_key"]


def test_a_context_is_drawn_from_the_class_or_the_set_by_the_image() -> None:
    keys = [f"k{number}" for number in range(40)]
    table = pd.DataFrame({"key": keys, "label": [number % 2 for number in range(40)]}).assign(
        class_name="boot", caption=[f"text {key}" for key in keys], style=""
    )
    table["rewrites"] = pd.Series([[]] * 40, dtype=object)
    table.loc[3, "caption"] = ""
    assert contexts(table, "own").tolist() == [*keys[:3], "", *keys[4:]]
    labels = table.set_index("key")["label"]
    by_class, by_set = contexts(table, "class"), contexts(table, "set")
    assert (labels[by_class].to_numpy() == labels.to_numpy()).all()
    assert 0.2 < (labels[by_set].to_numpy() == labels.to_numpy()).mean() < 0.8
    for drawn in (by_class, by_set):
        assert "k3" not in set(drawn)
        assert len(set(drawn)) > 15
    assert not contexts(table, "set", replica=1).equals(by_set)
    assert contexts(table.iloc[::-1], "set")[keys].equals(by_set)  # in any order
    silent = table.assign(caption=table["caption"].where(table["label"] == 0, ""))
    assert (contexts(silent, "class")[table["label"].to_numpy() == 1] == "").all()


def test_another_images_rewrite_is_named_by_its_own_key() -> None:
    table = pd.DataFrame({"key": ["k1", "k2"], "label": 0, "class_name": "boot", "style": ""})
    table["caption"] = ["red", ""]
    table["rewrites"] = [["crimson", "scarlet"], []]
    prompts = PROMPTS.model_copy(update={"context": "set"})
    rows = make_plan(table, prompts, SETTINGS, OFF, 1, Learned("g"))
    assert rows["caption_key"].tolist() == ["k1/1", "k1/1"]
    assert rows["prompt"].tolist() == ["a boot, scarlet best"] * 2


def test_a_seed_by_hand() -> None:
    # sha256("0/1/boot"), its first eight bytes, without the last bit
    assert image_seed(0, 1, "boot") == int("5abd971f8506f9dc", 16) >> 1


@given(
    st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=20, unique=True),
    st.sets(st.integers(0, 99), min_size=2, max_size=4),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=40)
def test_replicas_are_disjoint_keep_the_order_and_an_image_is_its_source_replica_and_seed(
    keys: list[str], replicas: set[int], seed: int
) -> None:
    plans = {replica: plan(keys, [""] * len(keys), replica, seed) for replica in replicas}
    together = pd.concat(plans.values())
    assert together["key"].is_unique
    assert together["seed"].is_unique
    assert together["seed"].between(0, 2**63 - 1).all()
    for replica, rows in plans.items():
        assert rows["source_key"].tolist() == keys
        alone = plan(keys[::-1], [""] * len(keys), replica, seed).set_index("key")
        assert (alone["seed"][rows["key"]].to_numpy() == rows["seed"].to_numpy()).all()


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_batches_cover_a_plan_in_order(count: int, shard_size: int, batch_size: int) -> None:
    shards = batches(pd.DataFrame({"key": range(count)}), shard_size, batch_size)
    assert [key for shard in shards for batch in shard for key in batch["key"]] == list(
        range(count)
    )
    assert all(len(batch) <= batch_size for shard in shards for batch in shard)
    assert all(sum(map(len, shard)) == shard_size for shard in shards[:-1])


# Making a replica


def test_a_replica_is_a_sound_image_set_with_everything_that_made_it(
    job: SynthesisJob, real: ImageSet, tmp_path: Path
) -> None:
    synthesize(job, 1, tmp_path / "out")
    made = ImageSet(tmp_path / "out")
    assert made.problems() == []
    assert made.class_names == real.class_names
    assert made.keys == [f"{key}-r1" for key in real.keys]
    assert made.labels.tolist() == real.labels.tolist()
    assert made.load().shape == (10, 16, 16, 3)
    assert sorted(contents(tmp_path / "out")) == [
        "SHA256SUMS",
        "index.parquet",
        "shard-00000.tar",
        "shard-00001.tar",
        "shard-00002.tar",
    ]
    expected = plan_of(job, real, 1)
    pd.testing.assert_frame_equal(made.index[list(expected)], expected)
    assert made.index["truncated"].tolist() == [False] * 10
    assert made.index["seed"].dtype == np.int64


def test_other_replicas_have_other_images(job: SynthesisJob, tmp_path: Path) -> None:
    synthesize(job, 0, tmp_path / "0")
    synthesize(job, 1, tmp_path / "1")
    assert not set(ImageSet(tmp_path / "0").index["sha256"]) & set(
        ImageSet(tmp_path / "1").index["sha256"]
    )


def test_images_hardly_depend_on_the_batch_size(
    job: SynthesisJob, real: ImageSet, tmp_path: Path
) -> None:
    synthesize(job, 0, tmp_path / "twos")
    synthesize(
        replace(job, settings=SETTINGS.model_copy(update={"batch_size": 5, "shard_size": 10})),
        0,
        tmp_path / "fives",
    )
    difference = np.abs(
        ImageSet(tmp_path / "twos").load().astype(int) - ImageSet(tmp_path / "fives").load()
    )
    assert difference.max() <= 1


def test_batches_rendered_at_once_have_the_bytes_of_one_after_the_other(
    job: SynthesisJob, real: ImageSet
) -> None:
    shard = batches(plan_of(job, real, 0), 10, 2)[0]
    threads = torch.get_num_threads()
    made = {}
    try:
        for workers in (1, 3):
            torch.set_num_threads(workers)
            made[workers] = list(open_renderer(job, real).render_all(shard))
            assert torch.get_num_threads() == workers
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(made[1], made[3])
    assert len(np.unique(np.concatenate(made[3]), axis=0)) == 10


def test_a_batch_that_fails_ends_the_shard(job: SynthesisJob, real: ImageSet) -> None:
    shard = batches(plan_of(job, real, 0), 10, 2)[0]
    shard[1] = shard[1].assign(sampler="none")
    images = open_renderer(job, real).render_all(shard)
    next(images)
    with pytest.raises(KeyError, match="none"):
        next(images)


@pytest.mark.parametrize(
    "change",
    [
        {"visual_guidance": OFF},
        {"settings": SETTINGS.model_copy(update={"strength": 1.0})},
        {"settings": SETTINGS.model_copy(update={"guidance_scale": 1.0})},
        {"settings": SETTINGS.model_copy(update={"guidance_interval": (0.0, 0.5)})},
        {"settings": SETTINGS.model_copy(update={"seed": 1})},
        {"settings": SETTINGS.model_copy(update={"sampler": "ddim"})},
        {"prompts": PROMPTS.model_copy(update={"negative": "worse"})},
        {"prompts": PROMPTS.model_copy(update={"caption": ""})},
    ],
)
def test_every_switch_changes_the_images_and_the_fingerprint(
    job: SynthesisJob, tmp_path: Path, change: dict
) -> None:
    real = ImageSet(job.real)
    rows = plan_of(job, real, 0).iloc[:2]
    other = replace(job, **change)
    assert replica_key(other, 0) != replica_key(job, 0)
    images = open_renderer(job, real).render(rows)
    assert not np.array_equal(
        open_renderer(other, real).render(plan_of(other, real, 0).iloc[:2]), images
    )


def test_the_fingerprint_does_not_depend_on_the_other_replicas(job: SynthesisJob) -> None:
    more = replace(job, settings=SETTINGS.model_copy(update={"replicas": (0, 1, 2)}))
    assert replica_key(more, 0) == replica_key(job, 0)
    assert replica_key(job, 1) != replica_key(job, 0)


def test_finished_shards_are_not_made_again(job: SynthesisJob, tmp_path: Path) -> None:
    synthesize(job, 0, tmp_path / "out")
    with scratch("synthesize", replica_key(job, 0)) as folder:
        kept = folder / "shard-00000.tar"
        before = (kept.stat().st_mtime_ns, (folder / "shard-00001.tar").stat().st_mtime_ns)
        (folder / "shard-00001.parquet").unlink()
        (folder / "shard-00001.tar").unlink()
    whole = contents(tmp_path / "out")
    synthesize(job, 0, tmp_path / "again")
    assert contents(tmp_path / "again") == whole
    assert kept.stat().st_mtime_ns == before[0]
    assert (folder / "shard-00001.tar").stat().st_mtime_ns > before[1]


def test_a_shard_that_was_damaged_in_the_scratch_pool_is_made_again_and_no_other(
    job: SynthesisJob, tmp_path: Path, capsys
) -> None:
    synthesize(job, 0, tmp_path / "out")
    whole = contents(tmp_path / "out")
    with scratch("synthesize", replica_key(job, 0)) as folder:
        damaged, kept = folder / "shard-00001.tar", folder / "shard-00000.tar"
        data = bytearray(damaged.read_bytes())
        data[700] ^= 4
        damaged.write_bytes(data)
        before = kept.stat().st_mtime_ns
    synthesize(job, 0, tmp_path / "again")
    assert contents(tmp_path / "again") == whole
    assert kept.stat().st_mtime_ns == before
    assert f"{damaged}: damaged" in capsys.readouterr().err


def test_an_adapter_of_another_style_is_refused(job: SynthesisJob, real: ImageSet) -> None:
    assert job.adapter
    Adapter(enabled=True, style="abc", fingerprint="x").save(job.adapter / "adapter.json")
    with pytest.raises(
        TruelikeError, match=r"trained with style abc, but .* holds none; run the stage adapt again"
    ):
        plan_of(job, real, 0)


SCRIPT = """
import pickle, sys
from pathlib import Path
from truelike.synthesis.run import synthesize
synthesize(pickle.loads(Path("job.pickle").read_bytes()), 0, Path("out"))
"""


@pytest.mark.slow
def test_a_killed_run_is_continued_to_the_same_bytes(job: SynthesisJob, tmp_path: Path) -> None:
    slow = replace(job, settings=SETTINGS.model_copy(update={"steps": 60}))
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.pickle").write_bytes(pickle.dumps(slow))
    command = [sys.executable, "-c", SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command, cwd=tmp_path / "killed", env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("shard-00000.parquet")):
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("shard-00002.parquet"))
    assert not (tmp_path / "killed/out").exists()
    first = next((tmp_path / "killed").rglob("shard-00000.tar"))
    made = first.stat().st_mtime_ns
    for name in ("killed", "whole"):
        subprocess.run(
            command, cwd=tmp_path / name, env=environment, check=True, stderr=subprocess.DEVNULL
        )
    assert contents(tmp_path / "killed/out") == contents(tmp_path / "whole/out")
    assert first.stat().st_mtime_ns == made


# Regenerating


def test_any_image_is_made_again_byte_for_byte(job: SynthesisJob, tmp_path: Path) -> None:
    synthesize(job, 1, tmp_path / "outputs/synthetic/1")
    made = ImageSet(tmp_path / "outputs/synthetic/1")
    for position in (0, 5, 9):
        again = regenerate(job, made.folder, made.keys[position])
        np.testing.assert_array_equal(again, made.pixels(position))


def test_changed_settings_are_named_instead_of_making_another_image(
    job: SynthesisJob, tmp_path: Path, real: ImageSet
) -> None:
    folder = tmp_path / "outputs/synthetic/0"
    synthesize(job, 0, folder)
    key = f"{real.keys[0]}-r0"
    changed = replace(job, settings=SETTINGS.model_copy(update={"strength": 0.5}))
    with pytest.raises(
        TruelikeError, match=r"made with other settings: strength is 0\.5, was 0\.75; check out"
    ):
        regenerate(changed, folder, key)
    assert job.adapter
    Adapter(enabled=True, fingerprint="new").save(job.adapter / "adapter.json")
    with pytest.raises(TruelikeError, match="adapter is 'new', was ''"):
        regenerate(job, folder, key)


def test_what_is_not_synthetic_cannot_be_regenerated(
    job: SynthesisJob, real: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(TruelikeError, match="holds no images of a replica"):
        regenerate(job, real.folder, real.keys[0])
    source = {"source_key": real.keys[0], "corruption": "fog", "severity": 1}
    corrupted = Sample("fog-1", 0, real.pixels(0), source)
    write_image_set(tmp_path / "corrupted", [corrupted], real.class_names)
    with pytest.raises(TruelikeError, match="holds no images of a replica"):
        regenerate(job, tmp_path / "corrupted", "fog-1")
    with pytest.raises(TruelikeError, match="no image 'nothing'"):
        regenerate(job, real.folder, "nothing")

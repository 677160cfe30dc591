"""Every benchmark runs at a tiny size, and its two sides agree; nothing here is timed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import QwenImagePipeline
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks import (
    Cost,
    architectures,
    cards,
    compare,
    demo,
    full_size,
    live,
    loading,
    memory,
    metrics,
    replicas,
    storage,
    synthesis,
    table,
    training,
    write,
)
from tests.support.jobs import OFF
from tests.support.tiny_flows import FLOWS
from truelike.config import load_params, parse_params
from truelike.imageset.reading import ImageSet
from truelike.runtime.yaml import read_yaml
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.settings import Synthesize
from truelike.training.images import LabelledImages
from truelike.training.seeds import Training
from truelike.training.settings import Phase

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def from_prior(job: SynthesisJob) -> SynthesisJob:
    """A replica of the ten images from the latent prior, without style and adapter."""
    params = load_params(ROOT / "recipes/default.yaml")
    settings = params.synthesize.model_copy(update={"batch_size": 4, "shard_size": 8})
    prompts = params.prompts.model_copy(update={"base": "a {class}"})
    return replace(job, prompts=prompts, settings=settings, visual_guidance=OFF)


def test_the_stock_pipeline_makes_the_same_images(from_prior: SynthesisJob, tmp_path: Path) -> None:
    synthesis.ours(from_prior, 0, tmp_path / "ours")
    synthesis.stock(from_prior, 0, tmp_path / "stock")
    assert synthesis.largest_difference(tmp_path / "ours", tmp_path / "stock") <= 1


def test_the_fast_recipe_changes_settings_of_synthesis_alone() -> None:
    recipe = read_yaml(ROOT / synthesis.FAST)
    settings = load_params(ROOT / "recipes/default.yaml").synthesize
    assert list(recipe) == ["synthesize"]
    assert isinstance(synthesis.fast(settings, recipe), Synthesize)
    assert synthesis.fast(settings, recipe) != settings


def test_the_time_of_the_last_whole_run_is_split_by_stage() -> None:
    rows = [
        ("prepare", "2026-01-01T00:00:00+00:00", 1.0),
        ("prepare", "2026-01-01T00:01:00+00:00", 2.0),
        ("train@real", "2026-01-01T00:01:10+00:00", 6.0),
        ("train@mixed", "2026-01-01T00:01:20+00:00", 7.0),
    ]
    found = demo.spent(pd.DataFrame(rows, columns=["stage", "finished", "seconds"]))
    assert found.to_dict("index") == {
        "prepare": {"runs": 1, "inside": 2.0, "between": 0.0},
        "train": {"runs": 2, "inside": 13.0, "between": 7.0},
    }


def test_replicas_are_forgotten_and_a_log_tells_how_far_one_came(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  adapt: {cmd: a}\n  synthesize@0: {cmd: b}\n"
    )
    (tmp_path / "outputs/synthetic/0").mkdir(parents=True)
    replicas.forget(tmp_path)
    assert read_yaml(tmp_path / "dvc.lock")["stages"] == {"adapt": {"cmd": "a"}}
    assert list((tmp_path / "outputs").iterdir()) == []
    (tmp_path / "params.yaml").write_text("synthesize: {replicas: [0], steps: 20}\n")
    replicas.set_synthesis(tmp_path, replicas=[0, 1])
    assert read_yaml(tmp_path / "params.yaml")["synthesize"] == {"replicas": [0, 1], "steps": 20}
    log = tmp_path / "log"
    log.write_text("Running\n")
    assert replicas.bar(log) is None
    log.write_text(
        "Running\nsynthesize 0:  20%|# | 32/160 [00:11<00:44]synthesize 0:  40%|# | 64/160 "
        "[00:21<00:31]"
    )
    assert replicas.bar(log) == (64, 160)


def test_measures_equal_the_usual_libraries() -> None:
    samples = metrics.features(200, 8)
    expected = metrics.usual_manifold(*samples)
    assert metrics.our_manifold(*samples) == pytest.approx(expected)
    assert metrics.our_distance(*samples) == pytest.approx(
        metrics.usual_distance(*samples), rel=1e-4
    )
    assert metrics.peak_mib(lambda: np.zeros(2**20)) == pytest.approx(8, rel=0.1)


def test_both_loops_train_the_same_network_on_the_same_images(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = LabelledImages(
        (draw.integers(0, 80, (24, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype("u1"),
        labels,
    )
    params = load_params(ROOT / "recipes/default.yaml").train.model_copy(
        update={"steps": 80, "batch_size": 8}
    )
    arm = Training(
        classifier=str(ROOT / "models/backbone"),
        num_classes=2,
        phases=[Phase(on="partner")],
        optimization=params.optimization,
        real=images,
        partner=images,
        evaluated={"validation": images},
        checkpoint_every=80,
    )
    training.write_folder(tmp_path / "images", images)
    own: dict[int, np.ndarray] = {}
    training.our_seeds(arm, [0], own)
    theirs = training.usual(arm, tmp_path / "images", 0, workers=0)
    assert own[0].shape == theirs.shape == (24, 2)
    assert training.accuracy(own, labels) == training.accuracy({0: theirs}, labels) == 100


def test_shards_and_loose_files_come_back_from_the_remote(tmp_path: Path) -> None:
    images = storage.samples(30)
    for name in ("loose", "sharded"):
        project = tmp_path / name
        storage.start_project(project)
        if name == "loose":
            storage.write_loose(project / "set", images)
        else:
            storage.write_image_set(project / "set", images, storage.CLASSES)
        assert list(storage.measure(project)) == ["add set", "status", "push", "pull"]
    pulled = ImageSet(tmp_path / "sharded/set")
    files = {path.stem: path.read_bytes() for path in (tmp_path / "loose/set").rglob("*.png")}
    assert {key: pulled.png(position) for position, key in enumerate(pulled.keys)} == files


def test_the_memory_of_a_stage_is_watched_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOT", ROOT)
    found = memory.peaks(4, stages=("prepare",))
    assert list(found) == ["prepare"]
    assert 20 < found["prepare"].anonymous < found["prepare"].resident
    assert found["prepare"].gpu is None


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_full_size_run_has_valid_settings_for_every_device(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setattr(full_size, "device", lambda: torch.device(kind))
    params = parse_params(full_size.settings(Path("images"), {}, name, None))
    recipe = parse_params(cards.settings_of([name]))
    batch, shots, dtype = 2, 1, "float32"
    if kind == "cuda":
        batch = shots = recipe.synthesize.batch_size
        dtype = recipe.models.dtype
    assert (params.naive.batch_size, params.adapt.batch_size) == (batch, batch)
    assert (params.data.shots, params.models.dtype) == (shots, dtype)
    assert params.data.resolution == recipe.data.resolution
    assert params.adapt.steps == params.invert.steps == params.train.steps == 2


def test_a_table_by_hand_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n", encoding="utf-8"
    )
    lines = table({"usual": Cost(3, 4), "ours": Cost(2, 1)}, "usual")
    assert lines[2:] == ["| usual | 3.00 | 4.00 | 1.00 |", "| ours | 2.00 | 1.00 | 1.50 |"]
    write("one", ["new"], page)
    assert (
        page.read_text(encoding="utf-8")
        == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    )


def test_sides_take_turns() -> None:
    calls: list[str] = []
    costs = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b", "a", "b"]
    assert set(costs) == {"a", "b"}


def test_live_bytes_are_those_of_torch_s_tracker() -> None:
    def step(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        network(torch.ones(2, 3, 16, 16)).square().sum().backward()
        optimizer.step()

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 5))

    with live.fake_mode, MemTracker() as theirs:
        step(network())
    snapshot = theirs.get_tracker_snapshot("peak")[torch.device("cpu")]
    with live.counted() as ours, live.fake_mode:
        step(network())
    assert ours.peak == snapshot["Total"]
    assert 0 <= ours.current < ours.peak


def test_weights_count_where_they_are_placed() -> None:
    with live.fake_mode:
        parts: dict[str, nn.Module] = {"a": nn.Linear(256, 256), "b": nn.Linear(256, 128)}
    with live.counted() as counted:
        counted.place(parts, ["a"])
        assert counted.current == 4 * (256 * 256 + 256)
        made = parts["a"](torch.ones(64, 256))
        assert counted.current >= 4 * (256 * 256 + 256) + made.numel() * 4
        counted.place(parts, ["b"])
        del made
    assert counted.current == 4 * (256 * 128 + 128)


def test_attention_keeps_no_matrix_of_all_pairs() -> None:
    tokens = 4096
    with live.counted() as counted:
        with live.fake_mode:
            query = torch.ones(1, 8, tokens, 64, dtype=torch.bfloat16, requires_grad=True)
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    assert counted.peak < tokens**2 * 2  # of one head, eight have eight times that


def test_a_real_mask_chooses_as_many_as_it_does_and_what_is_read_back_leaves_nothing_out() -> None:
    with live.fake_mode:
        states = torch.ones(2, 3, 4, dtype=torch.bfloat16)
    with live.counted():
        chosen = states[torch.tensor([[True, False, True], [False, False, True]])]
        read = torch.from_numpy(states.view(torch.int16).numpy()).view(torch.bfloat16)
    assert chosen.shape == (3, 4)
    assert torch.equal(read, torch.ones(2, 3, 4, dtype=torch.bfloat16))


def test_words_and_marks_are_as_many_as_the_tokens_of_a_real_tokenizer() -> None:
    """Qwen-Image's pipeline says how many tokens of its template come before a prompt."""
    tokenizer = architectures.word_tokenizer(1024)
    pipeline = QwenImagePipeline(*[None] * 5)
    before = pipeline.prompt_template_encode.partition("{}")[0]
    assert len(tokenizer(before).input_ids) == pipeline.prompt_template_encode_start_idx


PARAMETERS = {  # of each repository's weights
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {"unet": 2_567_463_684, "text_encoder_2": 694_659_840},
    "sd3.5-medium": {"text_encoder_3": 4_762_310_656},
    "flux-dev": {"transformer": 11_901_408_320},
    "sana": {"text_encoder": 2_614_341_888},
    "z-image-turbo": {"transformer": 6_154_908_736, "text_encoder": 4_022_468_096},
    "flux2-klein": {"transformer": 3_875_544_576, "text_encoder": 4_022_468_096},
    "qwen-image": {"transformer": 20_430_401_088, "text_encoder": 8_292_166_656},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_the_parameters_of_their_models(name: str) -> None:
    row = architectures.architectures()[name]
    for part, expected in PARAMETERS[name].items():
        with live.fake_mode:
            model = architectures.build_part(row.parts[part])
        assert sum(value.numel() for value in model.parameters()) == expected, part


def test_what_leaves_the_device_and_what_is_checkpointed_needs_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small Stable Diffusion through every stage, on an accelerator and on the CPU, where prompts
    are encoded one by one.
    """
    monkeypatch.setattr("truelike.generator.states.BATCH", 1)
    row = architectures.architectures()["sd15"]
    sizes = {"block_out_channels": [32, 64], "norm_num_groups": 8, "layers_per_block": 1}
    ends = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}
    ends |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
    row.parts["unet"] |= sizes | ends
    row.parts["text_encoder"] |= {"num_hidden_layers": 2}
    row.parts["vae"] |= {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1}
    raw = cards.settings_of(["sd15"])
    raw["data"]["resolution"] = 128
    raw["train"] |= {"resolution": 32, "batch_size": 4}
    raw["invert"]["batch_size"] = 4
    raw["models"]["classifier"] = str(ROOT / "models/backbone")
    there = cards.predictions(row, raw, on_gpu=True)
    here = cards.predictions(row, raw, on_gpu=False)
    assert list(there) == list(here) == list(cards.STAGES)
    assert all(there[stage] < here[stage] for stage in ("adapt", "naive", "synthesize"))
    assert all(0 < peak < 2 for peak in there.values())
    lines = cards.table({"tiny": there})
    assert lines[2].startswith(f"| tiny | {there['adapt']:.1f} |")
    assert lines[2].endswith("| 8 GB |")


def test_prompts_that_masks_cut_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Qwen-Image, on the settings of a model that learns in parts."""
    monkeypatch.setattr(cards, "build", lambda row: FLOWS["qwen"]())
    row = architectures.architectures()["qwen-image"]
    raw = cards.settings_of(row.recipe)
    raw["data"]["resolution"] = 64
    assert 0 < cards.predictions(row, raw, on_gpu=True, stages=["adapt"])["adapt"] < 2


def test_rows_of_models_that_were_not_asked_for_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- cards -->\n| | adapt |\n|---|---|\n| b | 1 |\n| c | 2 |\n<!-- end -->\n")
    lines = ["| | adapt |", "|---|---|", "| b | 3 |"]
    kept = cards.keep_others(lines, ["a", "c", "b"], page)
    assert kept == [*lines[:2], "| c | 2 |", "| b | 3 |"]


def test_every_side_reads_the_same_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    stored = loading.write_both(tmp_path, 12)
    kept = load_params(ROOT / "recipes/default.yaml").train.optimization
    kept = kept.model_copy(update={"batch_size": 4})
    streamed = kept.model_copy(update={"streaming": True})
    assert loading.timm_inputs(tmp_path / "files", 2, kept, 32, 0) == 24
    decoded = loading.load_images(stored, 32)
    lazy = loading.load_images(stored, 32, streaming=True)
    assert loading.our_inputs(decoded, 2, kept, 0) == 24
    assert loading.our_inputs(lazy, 2, streamed, 0) == 24

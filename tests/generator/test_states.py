"""The states of prompts: those of the stock pipelines, one by one, on disk, in any type."""

import gc
from pathlib import Path

import pytest
import torch

from tests.support import tiny_models
from tests.support.models import float32
from tests.support.tiny_flows import make_lumina2
from truelike.generator.generator import Generator
from truelike.generator.states import map_states

PROMPTS = ["a boot", "a bag", "a boot", ""]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_states_equal_the_stock_pipeline_s(generator: Path) -> None:
    opened = Generator.open(float32(generator))
    states = map_states(opened, PROMPTS).of(PROMPTS)["encoder_hidden_states"]
    with torch.no_grad():
        stock = opened.pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    torch.testing.assert_close(states, stock)
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_on_disk_is_what_was_encoded_alone(family: str, dtype: torch.dtype) -> None:
    opened = Generator(tiny_models.FAMILIES[family]().to(dtype=dtype))
    states = map_states(opened, PROMPTS)
    for prompts in (["a bag"], ["", "a boot", "a boot"]):
        found = states.of(prompts)
        with torch.no_grad():
            alone = [opened.encode([prompt]) for prompt in prompts]
        assert list(found) == list(alone[0])
        for name, value in found.items():
            assert value.dtype == dtype
            assert torch.equal(value, torch.cat([other[name] for other in alone]))


def test_negative_prompts_are_kept_apart_where_they_are_written_otherwise() -> None:
    opened = Generator(make_lumina2())
    states = map_states(opened, ["bad"], ["bad", ""])
    found = [states.of(["bad"]), states.of(["bad", ""], negative=True)]
    with torch.no_grad():
        alone = [opened.encode(["bad"]), opened.encode_negative(["bad"])]
    for name, value in alone[0].items():
        assert torch.equal(found[0][name], value)
        assert torch.equal(found[1][name][:1], alone[1][name])
    assert found[0]["encoder_attention_mask"].sum() > found[1]["encoder_attention_mask"][0].sum()


def test_each_distinct_prompt_is_encoded_once_whatever_their_number(
    generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Generator.open(float32(generator))
    encode, encoded = opened.encode, []

    def record(prompts: list[str]) -> dict[str, torch.Tensor]:
        encoded.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(opened, "encode", record)
    many = [f"a {number}" for number in range(40)]
    states = map_states(opened, many + many)
    assert sorted(encoded[1:]) == sorted(many)  # the first also tells the shapes
    assert states.rows.shape == (40, 24 * 32)


def test_the_file_is_gone_with_the_states(generator: Path, project: Path) -> None:
    states = map_states(Generator.open(float32(generator)), PROMPTS)
    assert len(states.of(PROMPTS)["encoder_hidden_states"]) == 4
    del states
    gc.collect()
    assert [path for path in (project / ".work").rglob("*") if path.is_file()] == []

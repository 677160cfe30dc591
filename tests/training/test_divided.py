"""One network on several processes: what one process learns, and resuming after a kill."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.classifiers import images_of, optimization, training
from tests.support.processes import run_two
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import one_thread
from truelike.training import loop
from truelike.training.loop import Checkpoint, LogRow, fit
from truelike.training.networks import open_classifier
from truelike.training.settings import Phase

PHASES = [
    Phase(on="partner", share=0.4),
    Phase(on="real+partner", share=0.3, joint=(1.0, 0.5)),
    Phase(on="real", share=0.3, reset_head=True),
]


def learn(network: str, changes: dict[str, Any], die_at: int | None, folder: Path) -> None:
    """Train in `folder`; with `die_at` the process ends after that step, without a word."""
    folder.mkdir(exist_ok=True)
    chosen = optimization(divide="batch", color_jitter=0.4, ema_decay=0.9, **changes)
    work = training(network, *PHASES, optimization=chosen)
    log: list[LogRow] = []

    def note(row: LogRow) -> None:
        log.append(row)
        if row[0] == die_at:
            os._exit(9)

    def opened() -> nn.Module:
        return open_classifier(network, 3, False, 32)

    shared = Checkpoint(folder.parent / f"network-{changes.get('optimizer')}.pt", 4)
    kept = shared if die_at is not None or shared.file.exists() else None
    model = fit(opened, partial(images_of, work), PHASES, chosen, 0, on_row=note, checkpoint=kept)
    torch.save(model.state_dict(), folder / "weights.pt")
    np.save(folder / "log.npy", np.array(log))


@pytest.fixture
def vit(tmp_path: Path) -> str:
    """A network with layer normalisation alone."""
    (tmp_path / "vit.yaml").write_text("timm: test_vit\n")
    return str(tmp_path / "vit.yaml")


@pytest.mark.parametrize("streaming", [False, True])
def test_two_processes_learn_what_one_learns_without_batch_normalisation(
    vit: str, tmp_path: Path, streaming: bool
) -> None:
    # Not AdamW, whose steps are as large for a gradient that is zero but for rounding.
    work = partial(learn, vit, {"streaming": streaming, "optimizer": "sgd"}, None)
    with one_thread():
        work(tmp_path / "alone")
        assert run_two(work, tmp_path) == [0, 0]
    one, first, second = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True)
        for name in ("alone", "0", "1")
    )
    for name, value in one.items():  # with 1 % more learning rate, 1e-3 apart
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5)
        assert torch.equal(first[name], second[name])
    np.testing.assert_allclose(
        np.load(tmp_path / "0/log.npy"), np.load(tmp_path / "alone/log.npy"), rtol=1e-4
    )


def test_two_killed_processes_go_on_to_the_same_bytes(classifier: str, tmp_path: Path) -> None:
    # The network has batch normalisation; the checkpoint of step 4 lies between rows of the log.
    changes = {"optimizer": "adamw", "log_every": 3}
    whole, again = tmp_path / "whole", tmp_path / "again"
    whole.mkdir()
    again.mkdir()
    with one_thread():
        assert run_two(partial(learn, classifier, changes, None), whole) == [0, 0]
        assert run_two(partial(learn, classifier, changes, 4), again) == [9, 9]
        assert (again / "network-adamw.pt").exists()
        assert run_two(partial(learn, classifier, changes, None), again) == [0, 0]
    expected = torch.load(whole / "0/weights.pt", weights_only=True)
    found = torch.load(again / "0/weights.pt", weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    np.testing.assert_array_equal(np.load(again / "0/log.npy"), np.load(whole / "0/log.npy"))


def test_batches_that_cannot_be_divided_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(TruelikeError, match=r"train\.batch_size: 3 processes cannot divide 8"):
        loop._share(8, optimization(divide="batch"))


def test_batch_normalisation_is_converted_for_gpus_alone(
    classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = optimization(divide="batch", sync_batch_norm=True)
    work = training(classifier, *PHASES, optimization=chosen)

    def opened() -> nn.Module:
        return open_classifier(classifier, 3, False, 32)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "device", lambda: torch.device("cpu"))
        patch.setattr(loop, "divides_batches", lambda optimization: True)
        with pytest.raises(TruelikeError, match=r"train\.sync_batch_norm: needs GPUs"):
            fit(opened, partial(images_of, work), PHASES, chosen, 0)
    plain = opened()
    monkeypatch.setattr(loop, "device", lambda: torch.device("cuda"))
    converted = loop._synchronised(opened())
    kinds = {name: type(module) for name, module in plain.named_modules()}
    assert any(issubclass(kind, nn.BatchNorm2d) for kind in kinds.values())
    for name, module in converted.named_modules():
        assert isinstance(module, nn.SyncBatchNorm) == issubclass(kinds[name], nn.BatchNorm2d)
    assert converted.state_dict().keys() == plain.state_dict().keys()

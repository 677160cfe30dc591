"""The training loop: phases, determinism, and resuming at any step."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F

from tests.support.classifiers import (
    OPTIMIZATION,
    coloured,
    images_of,
    optimization,
    training,
)
from tests.support.compiling import trace_only
from truelike.runtime.processes import one_thread
from truelike.runtime.scratch import discard
from truelike.training import loop
from truelike.training.augmentation import mixup, normalise, random_resized_crop
from truelike.training.images import LabelledImages, TrainingSet
from truelike.training.loop import Checkpoint, LogRow, fit, predict
from truelike.training.losses import batch_loss
from truelike.training.networks import input_statistics, open_classifier
from truelike.training.phases import learning_rate
from truelike.training.settings import Phase

ROOT = Path(__file__).resolve().parents[2]


def test_training_learns_the_colours(classifier: str) -> None:
    chosen = optimization(
        steps=60, batch_size=16, label_smoothing=0.0, warmup_fraction=0.05, crop_scale=0.8
    )
    work = training(classifier, Phase(on="real"), optimization=chosen)
    with one_thread():
        model = fit(
            lambda: open_classifier(classifier, 3, False),
            partial(images_of, work),
            work.phases,
            chosen,
            seed=0,
        )
        test = coloured(90, 99)
        probs = predict(model, test)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == test.labels).mean() > 0.9


def test_a_seed_starts_every_arm_from_the_same_weights(classifier: str) -> None:
    first: list[torch.Tensor] = []

    def opened() -> nn.Module:
        model = open_classifier(classifier, 3, False)
        first.append(model.get_submodule("fc").weight.detach().clone())  # type: ignore[union-attr, operator]
        return model

    chosen = optimization(steps=2, optimizer="sgd", lr=0.1, weight_decay=5e-4, warmup_fraction=0.0)
    for phases in (
        [Phase(on="real")],
        [Phase(on="partner", share=0.5, mixup=0.2), Phase(on="real", share=0.5)],
    ):
        work = training(classifier, *phases)
        fit(opened, partial(images_of, work), work.phases, chosen, seed=4)
    assert torch.equal(first[0], first[1])


def test_phases_train_on_their_own_images_with_their_own_schedule(classifier: str) -> None:
    phases = [
        Phase(on="partner", share=0.5),
        Phase(on="real", share=0.5, lr_scale=0.1, reset_head=True),
    ]
    work, seen, log = training(classifier, *phases), [], []

    def source(phase: Phase) -> list[TrainingSet]:
        seen.append(phase.on)
        return images_of(work, phase)

    fit(lambda: open_classifier(classifier, 3, False), source, phases, OPTIMIZATION, 0, log.append)
    assert seen == ["partner", "real"]
    assert [row[0] for row in log] == list(range(12))
    assert [row[1] for row in log] == [0] * 6 + [1] * 6
    assert max(row[3] for row in log[:6]) == pytest.approx(2e-3)
    assert max(row[3] for row in log[6:]) == pytest.approx(2e-4)
    assert [len(images) for images in images_of(work, Phase(on="real+partner"))] == [54]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "ema_decay": 0.9, "dtype": "float16", "sampling": "balanced"},
        {"color_jitter": 0.4, "dtype": "bfloat16", "log_every": 3},
        {"streaming": True, "log_every": 3},
    ],
)
def test_a_training_killed_at_any_step_goes_on_from_its_checkpoint(
    classifier: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
) -> None:
    phases = [  # of 4, 5 and 3 steps
        Phase(on="partner", share=0.3, mixup=0.2, cutmix=1.0),
        Phase(on="real+partner", share=0.45, joint=(1.0, 0.5)),
        Phase(on="real", share=0.25, reset_head=True),
    ]
    work = training(classifier, *phases, optimization=optimization(**changes))
    file = tmp_path / "network.pt"

    def opened() -> nn.Module:
        return timm.create_model(
            "test_vit", num_classes=3, img_size=32, drop_rate=0.2, drop_path_rate=0.2
        )

    def trained(last: int, **checkpoint: Any) -> tuple[dict[str, torch.Tensor], list[LogRow]]:
        log: list[LogRow] = []

        def note(row: LogRow) -> None:
            log.append(row)
            if row[0] == last:
                raise KeyboardInterrupt

        model = fit(
            opened, partial(images_of, work), phases, work.optimization, 4, note, **checkpoint
        )
        return model.state_dict(), log

    with one_thread():
        expected, expected_log = trained(99)
        kills = [(3, 4, 0), (4, 4, 4), (8, 5, 5), (10, 8, 8), (11, 5, 10)]
        for last, every, resumed in kills if work.optimization.log_every == 1 else [(8, 5, 5)]:
            with pytest.raises(KeyboardInterrupt):
                trained(last, checkpoint=Checkpoint(file, every))
            capfd.readouterr()
            found, log = trained(99, checkpoint=Checkpoint(file, every))
            said = f"{file}: goes on after step {resumed} of 12\n"
            assert capfd.readouterr().err == (said if resumed else "")
            assert log == expected_log
            assert all(torch.equal(found[name], value) for name, value in expected.items())
            discard(file)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.25), (0.0, 2.0)])
def test_a_joint_loss_weighs_a_real_and_a_partner_half_batch(
    classifier: str, weights: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[int, float, bool]] = []

    def noted(model: nn.Module, proxy: None, inputs: torch.Tensor, *rest: object) -> torch.Tensor:
        loss = batch_loss(model, proxy, inputs, *rest)  # type: ignore[arg-type]
        parts.append((len(inputs), loss.item(), bool(inputs.amax() < 0)))
        return loss

    monkeypatch.setattr(loop, "batch_loss", noted)
    real, partner = coloured(30, 0), coloured(24, 1)
    real = LabelledImages(real.pixels // 4, real.labels)  # darker than every partner image
    log: list[loop.LogRow] = []
    phase = Phase(on="real+partner", joint=weights)
    chosen = optimization(batch_size=7)
    fit(
        lambda: open_classifier(classifier, 3, False),
        lambda _: [real, partner],
        [phase],
        chosen,
        0,
        log.append,
    )
    assert [size for size, *_ in parts] == [3, 4] * 12
    assert [dark for *_, dark in parts] == [True, False] * 12
    sums = [
        weights[0] * a[1] + weights[1] * b[1] for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]
    np.testing.assert_allclose([row[2] for row in log], sums, rtol=1e-5)


def test_plain_phases_draw_what_they_always_drew(classifier: str) -> None:
    """A phase of the oldest kind against a loop of its own: the same numbers in the same order, to
    the last bit.
    """
    phase = Phase(on="real", mixup=0.2)
    images = coloured(30, 0)
    with one_thread():
        torch.manual_seed(1)
        model = open_classifier(classifier, 3, False).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        rng = np.random.default_rng([1, 0])
        rng.integers(2**62)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05, fused=True)
        queue: list[int] = []
        for step in range(12):
            if len(queue) < 8:
                queue += rng.permutation(30).tolist()
            chosen, queue = queue[:8], queue[8:]
            pixels = torch.from_numpy(images.pixels[chosen]).permute(0, 3, 1, 2)
            inputs = normalise(pixels, *input_statistics(model))
            inputs = random_resized_crop(inputs, 0.6, True, generator)
            inputs, order, weight = mixup(inputs, 0.2, rng)
            logits = model(inputs.contiguous(memory_format=torch.channels_last))
            labels = torch.from_numpy(images.labels[chosen])
            loss = weight * F.cross_entropy(logits, labels, label_smoothing=0.1)
            loss = loss + (1 - weight) * F.cross_entropy(logits, labels[order], label_smoothing=0.1)
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = learning_rate(
                step, 12, 1.0, OPTIMIZATION
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = fit(
            lambda: open_classifier(classifier, 3, False),
            lambda _: [images],
            [phase],
            OPTIMIZATION,
            seed=1,
        )
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_a_row_of_the_log_is_the_mean_of_its_steps(classifier: str) -> None:
    phases = [Phase(on="real", share=0.6), Phase(on="partner", share=0.4)]  # 7 and 5 steps
    logs: dict[int, list[LogRow]] = {1: [], 3: []}
    with one_thread():
        for every, log in logs.items():
            work = training(classifier, *phases, optimization=optimization(log_every=every))
            fit(
                lambda: open_classifier(classifier, 3, False),
                partial(images_of, work),
                phases,
                work.optimization,
                0,
                log.append,
            )
    assert [row[:2] for row in logs[3]] == [(2, 0), (5, 0), (6, 0), (9, 1), (11, 1)]
    single = [row[2] for row in logs[1]]
    parts = [single[:3], single[3:6], single[6:7], single[7:10], single[10:]]
    assert [row[2] for row in logs[3]] == pytest.approx([np.mean(part) for part in parts])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_learns_the_colours_with_weights_in_float32(
    classifier: str, dtype: str
) -> None:
    chosen = optimization(
        steps=60, batch_size=16, label_smoothing=0.0, crop_scale=0.8, dtype=dtype, ema_decay=0.9
    )
    work = training(classifier, Phase(on="real"), optimization=chosen)
    with one_thread():
        model = fit(
            lambda: open_classifier(classifier, 3, False),
            partial(images_of, work),
            work.phases,
            chosen,
            seed=0,
        )
        test = coloured(90, 99)
        probs = predict(model, test)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (probs.argmax(1) == test.labels).mean() > 0.9


def test_the_moving_average_is_of_the_last_phase(classifier: str) -> None:
    steps: list[dict[str, torch.Tensor]] = []
    phases = [Phase(on="real", share=0.5), Phase(on="partner", share=0.5)]
    chosen = optimization(steps=8, ema_decay=0.5)
    work = training(classifier, *phases, optimization=chosen)
    models: list[nn.Module] = []

    def opened() -> nn.Module:
        models.append(open_classifier(classifier, 3, False))
        return models[0]

    def note(row: LogRow) -> None:
        steps.append({name: value.clone() for name, value in models[0].state_dict().items()})

    with one_thread():
        averaged = fit(opened, partial(images_of, work), phases, chosen, 0, note).state_dict()
    expected = steps[4]["fc.weight"]  # after the first step of the second phase
    for number in (2, 3, 4):
        decay = min(0.5, 1 - number ** (-2 / 3))  # timm's warm-up of the decay
        expected = decay * expected + (1 - decay) * steps[3 + number]["fc.weight"]
    torch.testing.assert_close(averaged["fc.weight"], expected)


def test_biases_and_norms_have_no_weight_decay(classifier: str) -> None:
    model = open_classifier(classifier, 3, False)
    state = loop._begin(model, model, Phase(on="real"), 1, OPTIMIZATION, [0, 0])
    decays = {
        id(parameter): group["weight_decay"]
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name


def test_a_compiled_network_learns_the_same(
    classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = trace_only(monkeypatch)
    trained = []
    for compiles in (False, True):
        chosen = optimization(compile=compiles, ema_decay=0.9, steps=4)
        work = training(classifier, Phase(on="real"), optimization=chosen)

        def opened() -> nn.Module:
            return open_classifier(classifier, 3, False, 32)

        trained.append(fit(opened, partial(images_of, work), work.phases, chosen, 0))
    plain, compiled = (model.state_dict() for model in trained)
    assert len(given) == 1
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value)

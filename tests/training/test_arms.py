"""The ways to train beside plain phases: joint losses, cutmix, soft labels, proxy guidance, and the
documented arms.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from safetensors.torch import save_file
from timm.data.mixup import Mixup, mixup_target
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F

from tests.training.test_training import CLASSES, RECIPE, TRAIN, coloured, job, load
from truelike.runtime.errors import TruelikeError
from truelike.training import loop
from truelike.training.augmentation import cutmix, mix, mixup, normalise, random_resized_crop
from truelike.training.loop import LabelledImages, Recipe, fit, learning_rate, one_thread, predict
from truelike.training.losses import batch_loss, proxy_divergence
from truelike.training.networks import input_statistics, open_classifier, open_proxy
from truelike.training.seeds import train_seeds
from truelike.training.settings import Phase, Train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    pointer = tmp_path_factory.mktemp("net") / "net.yaml"
    pointer.write_text("timm: test_resnet\n")
    return str(pointer)


class Reversed:
    """A random generator with given numbers, whose permutation is timm's: the batch reversed."""

    def __init__(self, beta: float, centre: tuple[int, int] = (0, 0)) -> None:
        self._beta, self._centre = beta, iter(centre)

    def beta(self, a: float, b: float) -> float:
        return self._beta

    def permutation(self, size: int) -> np.ndarray:
        return np.arange(size)[::-1].copy()

    def integers(self, high: int) -> int:
        return next(self._centre)


@pytest.mark.parametrize("centre", [(0, 0), (5, 11), (15, 23), (8, 2)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.83, 1.0])
def test_cutmix_and_its_loss_are_those_of_timm(
    weight: float, centre: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, logits = (
        torch.rand(6, 3, 16, 24),
        torch.tensor([0, 1, 2, 3, 0, 1]),
        torch.randn(6, 4),
    )
    numbers = iter(centre)
    monkeypatch.setattr(np.random, "beta", lambda a, b: weight)
    monkeypatch.setattr(np.random, "randint", lambda low, high, size: next(numbers))
    expected, targets = Mixup(0.0, 1.0, label_smoothing=0.1, num_classes=4)(images.clone(), labels)
    found, order, kept = cutmix(images, 1.0, Reversed(weight, centre))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mixup_target(labels, 4, kept, 0.1), targets)
    loss = kept * F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss += (1 - kept) * F.cross_entropy(logits, labels[order], label_smoothing=0.1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_mixup_is_that_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 3, 8, 8)
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.3)
    expected, _ = Mixup(0.2, 0.0, num_classes=4)(images.clone(), torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(mixup(images, 0.2, Reversed(0.3))[0], expected)  # type: ignore[arg-type]


def test_both_mixes_take_turns_and_repeat_with_the_seed() -> None:
    images = torch.rand(4, 3, 8, 8)
    phase = Phase(on="real", mixup=0.2, cutmix=1.0)
    turns = []
    for seed in range(20):
        mixed = mix(images, phase, np.random.default_rng(seed))[0]
        assert torch.equal(mixed, mix(images, phase, np.random.default_rng(seed))[0])
        known = (
            (mixed[:, None] == images[None]).all(2).any(1).all()
        )  # each pixel comes from one image of the batch
        turns.append(bool(known))
    assert 4 < sum(turns) < 16


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
    recipe = replace(RECIPE, batch_size=7)
    fit(
        lambda: open_classifier(classifier, 3, False),
        lambda _: [real, partner],
        [phase],
        recipe,
        0,
        log.append,
    )
    assert [size for size, *_ in parts] == [3, 4] * 12
    assert [dark for *_, dark in parts] == [True, False] * 12
    sums = [
        weights[0] * a[1] + weights[1] * b[1] for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]
    np.testing.assert_allclose([row[2] for row in log], sums, rtol=1e-5)


def test_soft_labels_are_the_teachers_beside_one_hot_real_ones(classifier: str) -> None:
    work = job(classifier, Phase(on="real+partner", soft_labels=0.75))
    taught = np.random.default_rng(0).dirichlet(np.ones(3), 24).astype(np.float32)
    (union,) = work.sources(work.phases[0], taught)
    np.testing.assert_array_equal(union.labels[:30], np.eye(3)[work.real.labels])
    expected = 0.75 * taught + 0.25 * np.eye(3)[work.partner.labels]
    np.testing.assert_allclose(union.labels[30:], expected, rtol=1e-6)
    np.testing.assert_allclose(union.labels.sum(1), 1, rtol=1e-6)
    (plain,) = work.sources(Phase(on="real+partner"), taught)
    assert plain.labels.dtype == np.int64


def test_the_teacher_is_the_network_of_the_arm_real(classifier: str, tmp_path: Path) -> None:
    work = job(classifier, Phase(on="partner", soft_labels=1.0))
    teacher = replace(job(classifier, Phase(on="real")), evaluated={"partner": work.partner.pixels})
    for folder, arm in (("student", work), ("teacher", teacher)):
        (tmp_path / folder).mkdir()
        train_seeds(arm, [4], tmp_path / folder, 1)
    taught = load(tmp_path / "teacher", 4)["partner"]
    with one_thread():
        sources = [LabelledImages(work.partner.pixels, taught)]
        model = fit(
            lambda: open_classifier(classifier, 3, False),
            lambda _: sources,
            work.phases,
            RECIPE,
            seed=4,
        )
        expected = predict(model, work.evaluated["test"])
    np.testing.assert_array_equal(load(tmp_path / "student", 4)["test"], expected)


def test_hard_targets_are_the_soft_ones_that_are_one_hot(classifier: str) -> None:
    model = open_classifier(classifier, 3, False).eval()
    inputs, labels = torch.rand(5, 3, 32, 32), torch.tensor([0, 1, 2, 1, 0])
    for phase in (Phase(on="real"), Phase(on="real", mixup=0.5), Phase(on="real", cutmix=1.0)):
        hard, soft = (
            batch_loss(model, None, inputs, targets, phase, 0.1, np.random.default_rng(0))
            for targets in (labels, F.one_hot(labels, 3).float())
        )
        torch.testing.assert_close(hard, soft)


def test_proxy_divergence_by_hand_and_its_gradient() -> None:
    torch.manual_seed(0)
    proxy = timm.create_model("test_resnet", num_classes=6).eval().requires_grad_(False)
    inputs, features = torch.rand(4, 3, 32, 32), torch.randn(4, 96, requires_grad=True)
    found = proxy_divergence(proxy, inputs, features)
    p = proxy(inputs).double().softmax(1)
    q = proxy.fc(features).double().softmax(1)
    torch.testing.assert_close(
        found.double(), (p * (p / q).log()).sum(1).mean(), rtol=1e-4, atol=1e-6
    )
    found.backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in proxy.parameters())
    own = proxy.forward_head(proxy.forward_features(inputs), pre_logits=True)
    assert proxy_divergence(proxy, inputs, own).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_proxy_guidance_adds_to_the_cross_entropy(name: str) -> None:
    model, proxy = (timm.create_model(name, num_classes=count).eval() for count in (3, 6))
    side = model.pretrained_cfg["input_size"][1]
    inputs, labels = torch.rand(4, 3, side, side), torch.tensor([0, 1, 2, 1])
    features = model.forward_head(model.forward_features(inputs), pre_logits=True)
    found = batch_loss(
        model,
        proxy,
        inputs,
        labels,
        Phase(on="real", proxy_guidance=0.1),
        0.0,
        np.random.default_rng(0),
    )
    expected = F.cross_entropy(model(inputs), labels) + 0.1 * proxy_divergence(
        proxy, inputs, features
    )
    torch.testing.assert_close(found, expected)


def test_proxy_guidance_keeps_the_network_near_the_pretrained_one() -> None:
    backbone = str(ROOT / "models" / "backbone")
    work, recipe = job(backbone), replace(RECIPE, steps=60)
    inputs = torch.from_numpy(work.real.pixels).permute(0, 3, 1, 2) / 127.5 - 1
    distances = {}
    for weight in (0.0, 1.0):
        proxy = open_proxy(backbone)
        phases = [Phase(on="real+partner", proxy_guidance=weight)]
        with one_thread():
            model = fit(
                lambda: open_classifier(backbone, 3, True),
                work.sources,
                phases,
                recipe,
                0,
                proxy=proxy,
            )
        features = model.forward_head(model.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
        distances[weight] = proxy_divergence(proxy, inputs, features).item()
    assert distances[1.0] < 0.5 * distances[0.0]


def test_the_pretrained_networks_own_last_layer_is_needed(tmp_path: Path) -> None:
    assert open_proxy(str(ROOT / "models" / "backbone")).get_classifier().out_features == 19  # type: ignore[operator]
    model = timm.create_model("test_resnet", num_classes=0)
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 0}')
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(TruelikeError, match="proxy_guidance compares"):
        open_proxy(str(tmp_path))


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"on": "real", "joint": [1, 1]}, "joint .* needs on: real\\+partner"),
        ({"on": "real", "soft_labels": 1.0}, "soft_labels are of partner images"),
        (
            {"on": "real", "proxy_guidance": 0.1},
            "the arm x has proxy_guidance, which needs train.pretrained",
        ),
    ],
)
def test_arms_that_cannot_be(phase: dict, message: str) -> None:
    arm = {"partner": "synthetic", "phases": [phase]}
    with pytest.raises(ValidationError, match=message):
        Train.model_validate(TRAIN | {"arms": TRAIN["arms"] | {"x": arm}})


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
                step, 12, 2e-3, 0.1, "cosine"
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = fit(
            lambda: open_classifier(classifier, 3, False),
            lambda _: [images],
            [phase],
            RECIPE,
            seed=1,
        )
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def documented_arms() -> dict[str, dict]:
    """The arms of the yaml block in docs/methods.md."""
    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.DOTALL
    )
    return YAML(typ="safe", pure=True).load(block)


@pytest.mark.parametrize("name", documented_arms())
def test_documented_arms_train_at_equal_steps(name: str, tmp_path: Path) -> None:
    arms = TRAIN["arms"] | {name: documented_arms()[name]}
    settings = Train.model_validate(TRAIN | {"pretrained": True, "arms": arms})
    work = job(str(ROOT / "models" / "backbone"), *settings.arms[name].phases)
    work = replace(work, pretrained=True, recipe=Recipe.of(settings))
    train_seeds(work, [0], tmp_path, 1)
    found = load(tmp_path, 0)
    assert found["log"].shape == (TRAIN["steps"], 4)
    assert np.isfinite(found["log"]).all()
    assert found["test"].shape == (9, len(CLASSES))


@pytest.mark.parametrize("on", ["real", "partner", "real+partner"])
def test_one_image_per_class_fills_a_larger_batch(classifier: str, on: str, tmp_path: Path) -> None:
    work = replace(job(classifier, Phase(on=on)), real=coloured(3, 0), partner=coloured(3, 1))  # type: ignore[arg-type]
    train_seeds(work, [0], tmp_path, 1)
    assert np.isfinite(load(tmp_path, 0)["test"]).all()


def test_a_joint_phase_with_one_image_per_class(classifier: str, tmp_path: Path) -> None:
    phase = Phase(on="real+partner", joint=(1.0, 1.0), cutmix=1.0, soft_labels=0.5)
    train_seeds(
        replace(job(classifier, phase), real=coloured(3, 0), partner=coloured(3, 1)),
        [0],
        tmp_path,
        1,
    )
    assert np.isfinite(load(tmp_path, 0)["test"]).all()

"""The loss of a batch: hard, soft and mixed targets, and proxy guidance."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.support.classifiers import (
    images_of,
    optimization,
    training,
)
from truelike.runtime.errors import TruelikeError
from truelike.runtime.processes import one_thread
from truelike.training.loop import fit
from truelike.training.losses import batch_loss, proxy_divergence
from truelike.training.networks import open_classifier, open_proxy
from truelike.training.settings import Phase

ROOT = Path(__file__).resolve().parents[2]


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
    work, chosen = training(backbone), optimization(steps=60)
    inputs = torch.from_numpy(work.real.pixels).permute(0, 3, 1, 2) / 127.5 - 1
    distances = {}
    for weight in (0.0, 1.0):
        proxy = open_proxy(backbone)
        phases = [Phase(on="real+partner", proxy_guidance=weight)]
        with one_thread():
            model = fit(
                lambda: open_classifier(backbone, 3, True),
                partial(images_of, work),
                phases,
                chosen,
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

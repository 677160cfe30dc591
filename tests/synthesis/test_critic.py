"""Feedback in a replica: the network that it follows, and images that it changes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from tests.support.jobs import SETTINGS
from truelike.imageset.reading import ImageSet
from truelike.runtime.errors import TruelikeError
from truelike.synthesis.critic import find_network, network_identity, open_critic
from truelike.synthesis.jobs import SynthesisJob
from truelike.synthesis.regenerate import regenerate
from truelike.synthesis.run import open_renderer, plan_of, replica_key, synthesize
from truelike.synthesis.settings import FeedbackSettings
from truelike.training.trained import save_weights, write_config


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    """The two kept networks of an arm, for boot and bag."""
    for seed in (3, 12):
        torch.manual_seed(seed)
        network = tmp_path / "networks" / str(seed)
        network.mkdir(parents=True)
        model = timm.create_model("test_resnet", num_classes=2)
        save_weights(model, network / "model.safetensors")
        write_config(model, 16, ["boot", "bag"], {}, network / "config.json")
    return tmp_path / "networks"


def followed(job: SynthesisJob, arm: Path, **changes: object) -> SynthesisJob:
    given = {"criterion": "entropy", "weight": 0.3, "every": 2, "network": str(arm)}
    feedback = FeedbackSettings.model_validate(given | changes)
    return replace(job, settings=SETTINGS.model_copy(update={"feedback": feedback}))


def test_the_network_is_not_chosen_by_its_accuracy(arm: Path) -> None:
    assert find_network(arm) == arm / "3"
    assert find_network(arm / "12") == arm / "12"
    assert network_identity(arm) == network_identity(arm / "3")
    assert network_identity(arm) != network_identity(arm / "12")
    with pytest.raises(TruelikeError, match=r"holds no trained network; .* with train\.keep: all"):
        find_network(arm.parent)


def test_the_identity_of_a_network_is_not_what_validation_says_of_it(arm: Path) -> None:
    before, file = network_identity(arm), arm / "3/config.json"
    config = json.loads(file.read_text())
    config["training"] = {"validation_accuracy": 99.0}
    file.write_text(json.dumps(config))
    assert network_identity(arm) == before
    del config["training"]  # as in a network of the user's own
    file.write_text(json.dumps(config))
    assert network_identity(arm) == before
    config["pretrained_cfg"]["mean"] = [0.1, 0.1, 0.1]
    file.write_text(json.dumps(config))
    assert network_identity(arm) != before


def test_a_criterion_by_hand(arm: Path) -> None:
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1])
    device = torch.device("cpu")
    entropy, loss = (
        open_critic(arm, kind, ["boot", "bag"], device) for kind in ("entropy", "loss")
    )
    inputs = torch.nn.functional.interpolate(images, (16, 16), mode="bicubic", antialias=True)
    p = entropy.network((inputs - entropy.mean) / entropy.std).softmax(1).detach()
    torch.testing.assert_close(entropy.score(images, labels), -(p * p.log()).sum(1))
    torch.testing.assert_close(loss.score(images, labels), -p[range(3), labels].log())
    with pytest.raises(TruelikeError, match="does not tell the classes of the real images apart"):
        open_critic(arm, "loss", ["bag", "boot"], device)
    config = arm / "3/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "label_names": None}))
    with pytest.raises(TruelikeError, match="does not tell the classes"):
        open_critic(arm, "loss", ["boot", "bag"], device)


def test_feedback_raises_its_criterion_and_is_in_the_row(
    job: SynthesisJob, arm: Path, real: ImageSet, tmp_path: Path
) -> None:
    guided = followed(job, arm, criterion="loss")
    folder = tmp_path / "outputs/synthetic/0"
    synthesize(guided, 0, folder)
    made = ImageSet(folder)
    row = made.index.iloc[0]
    assert (row["feedback"], row["feedback_weight"], row["feedback_every"]) == ("loss", 0.3, 2)
    assert row["feedback_network"] == network_identity(arm)
    np.testing.assert_array_equal(regenerate(guided, folder, made.keys[3]), made.pixels(3))
    plain = np.concatenate(
        [open_renderer(job, real).render(plan_of(job, real, 0).iloc[i : i + 2]) for i in (0, 2)]
    )
    critic = open_critic(arm, "loss", real.class_names, torch.device("cpu"))
    labels = torch.tensor(real.labels[:4].tolist())
    with torch.no_grad():
        before, after = (
            critic.score(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, labels).mean()
            for pixels in (plain, made.load(range(4)))
        )
    assert after > before


def test_without_criterion_rows_and_images_are_as_without_feedback(
    job: SynthesisJob, arm: Path, real: ImageSet
) -> None:
    rows = plan_of(job, real, 0)
    off = followed(job, arm, criterion="off")
    assert plan_of(off, real, 0).equals(rows)
    assert open_renderer(off, real).critic is None
    assert replica_key(followed(job, arm), 0) != replica_key(job, 0)
    other = followed(job, arm / "12")
    assert replica_key(other, 0) != replica_key(followed(job, arm), 0)

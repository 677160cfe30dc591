"""The network whose criterion feedback follows: one that `train` kept, opened by timm alone, so
that a replica does not depend on the code of training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from truelike.generator.generator import Generator
from truelike.paths import CONFIG, WEIGHTS
from truelike.runtime.errors import TruelikeError
from truelike.runtime.scratch import fingerprint


@dataclass(frozen=True)
class Critic:
    """A frozen classifier in float32 with the side, mean and standard deviation of its inputs, and
    what is asked of it.
    """

    network: nn.Module
    resolution: int
    mean: Tensor
    std: Tensor
    criterion: Literal["entropy", "loss"]

    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        """The entropy of the prediction for each of N images (N, 3, H, W) in 0 to 1, or its loss on
        the labels (N,); in nats.
        """
        side = (self.resolution, self.resolution)
        if images.shape[-2:] != side:
            images = functional.interpolate(images, side, mode="bicubic", antialias=True)
        logits = self.network((images - self.mean) / self.std).log_softmax(1)
        if self.criterion == "loss":
            return functional.nll_loss(logits, labels, reduction="none")
        return -(logits.exp() * logits).sum(1)

    def of_latents(self, generator: Generator, labels: Tensor, latents: Tensor) -> Tensor:
        """The criterion of the images that latents (N, C, h, w) are decoded into."""
        images = generator.decode(latents)
        return self.score((images / 2 + 0.5).clamp(0, 1), labels.to(images.device))


def find_network(folder: Path) -> Path:
    """The network in a directory, or among an arm's networks that of the first kept seed, which its
    accuracy on validation images does not choose; raises TruelikeError where there is none.
    """
    kept = sorted(folder.glob(f"[0-9]*/{CONFIG}"), key=lambda file: int(file.parent.name))
    network = kept[0].parent if kept else folder
    if not (network / CONFIG).is_file():
        raise TruelikeError(
            f"synthesize.feedback.network: {folder} holds no trained network; name an arm's, such "
            "as outputs/train/real/networks, with train.keep: all"
        )
    return network


def network_identity(folder: Path) -> str:
    """The fingerprint of what decides the answers of the network that `find_network` finds: its
    weights and its config, without what that tells of its training.
    """
    network = find_network(folder)
    config = json.loads((network / CONFIG).read_text(encoding="utf-8"))
    config.pop("training", None)  # of a network that this pipeline trained
    return fingerprint(config, network / WEIGHTS)


def open_critic(
    folder: Path,
    criterion: Literal["entropy", "loss"],
    class_names: Sequence[str],
    device: torch.device,
) -> Critic:
    """Open the network in a directory, or an arm's; raises TruelikeError unless it tells these
    classes apart.
    """
    network = find_network(folder)
    config = json.loads((network / CONFIG).read_text(encoding="utf-8"))
    if config.get("label_names") != list(class_names):
        raise TruelikeError(
            f"synthesize.feedback.network: {network} does not tell the classes of the real images "
            "apart; name networks that this pipeline trained, such as outputs/train/real/networks"
        )
    model = timm.create_model(f"local-dir:{network}", pretrained=True)
    inputs = config["pretrained_cfg"]
    mean, std = (
        torch.tensor(inputs[name], device=device).view(3, 1, 1) for name in ("mean", "std")
    )
    model = model.float().eval().requires_grad_(False).to(device)
    return Critic(model, int(inputs["input_size"][-1]), mean, std, criterion)

"""Trains the classifier that judges what the generator draws, on real corpus images."""

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from foundation import backbone
from foundation.attributes import CLASS_NAMES
from foundation.paths import JUDGE
from foundation.settings import Settings
from foundation.training import stage_inputs

HEADS = {"class": CLASS_NAMES, **backbone.HEADS}
WEIGHTS = JUDGE / "model.safetensors"


def build() -> nn.Module:
    """Build a ResNet-10 that halves an image once before its blocks, not twice."""
    model = timm.create_model(
        "resnet10t",
        num_classes=sum(len(words) for words in HEADS.values()),
        channels=(32, 64, 128, 256),
    )
    model.maxpool = nn.Identity()
    return model.to(memory_format=torch.channels_last)


def load() -> nn.Module:
    """Load the trained judge."""
    model = build()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def main() -> None:
    settings = Settings.load().judge
    torch.manual_seed(settings.seed)
    model = build()
    backbone.train(model, HEADS, "judge", settings, stage_inputs("judge"))
    JUDGE.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()

"""Trains the classifier that judges what the generator draws, on real corpus images."""

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation import backbone
from foundation.attributes import CLASS_NAMES
from foundation.paths import JUDGE
from foundation.settings import Settings
from foundation.training import stage_inputs, to_unit

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


@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor, heads: dict[str, tuple[str, ...]]
) -> dict[str, list[str]]:
    """Predict a word of each head for uint8 images: N words each."""
    logits = torch.cat([model(to_unit(part)) for part in images.split(500)])
    blocks = backbone.split_heads(logits, heads)
    return {head: [heads[head][i] for i in block.argmax(1)] for head, block in blocks.items()}


def main() -> None:
    settings = Settings.load().judge
    torch.manual_seed(settings.seed)
    model = build()
    backbone.train(model, HEADS, "judge", settings, stage_inputs("judge"))
    JUDGE.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()

"""Trains the backbone to name colour, ground and pattern, never the garment: a start from other
labels.
"""

import json
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from foundation.attributes import COLOURS, GROUNDS, PATTERNS, SIZE
from foundation.paths import BACKBONE
from foundation.settings import Settings, Training
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs, to_unit

ARCHITECTURE = "test_resnet"
HEADS = {"colour": tuple(COLOURS), "ground": tuple(GROUNDS), "pattern": PATTERNS}


def save(model: nn.Module) -> None:
    """Save a network as timm lays one out on the hub, so ``timm.create_model("local-dir:...")``
    opens it.
    """
    names = [f"{head}: {word}" for head, words in HEADS.items() for word in words]
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": len(names),
        "num_features": model.num_features,
        "label_names": names,
        "pretrained_cfg": {
            "input_size": [3, SIZE, SIZE],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "num_classes": len(names),
            "pool_size": [1, 1],
            "first_conv": "conv1.0",
            "classifier": "fc",
            "license": "apache-2.0",
        },
    }
    BACKBONE.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), BACKBONE / "model.safetensors", metadata={"format": "pt"})
    (BACKBONE / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def split_heads(logits: Tensor, heads: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Split the columns of joint logits, (N, sum of words), into one block for each head."""
    return dict(
        zip(heads, logits.split([len(words) for words in heads.values()], dim=1), strict=True)
    )


@torch.no_grad()
def score(model: nn.Module, images: Tensor, heads: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Score uint8 images: logits of each head, (N, words) each."""
    return split_heads(torch.cat([model(to_unit(part)) for part in images.split(500)]), heads)


def predict(
    model: nn.Module, images: Tensor, heads: dict[str, tuple[str, ...]]
) -> dict[str, list[str]]:
    """Predict a word of each head for uint8 images: N words each."""
    scores = score(model, images, heads)
    return {head: [heads[head][i] for i in block.argmax(1)] for head, block in scores.items()}


def targets(table: dict[str, list[str]], heads: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Number the words of each head's attribute: (N,) each."""
    return {
        head: torch.tensor([words.index(word) for word in table[head]])
        for head, words in heads.items()
    }


def train(
    model: nn.Module,
    heads: dict[str, tuple[str, ...]],
    name: str,
    settings: Training,
    inputs: list[Path],
) -> None:
    """Train a network on the corpus with one cross-entropy for each head, garments shifted by up to
    2 px.
    """
    images, table = load_corpus("train")
    labels = targets({head: table[head].tolist() for head in heads}, heads)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.05)
    decay = schedule(optimizer, settings.steps)

    def one_step(draw: Draw) -> dict[str, float]:
        shift = torch.randint(-2, 3, (2,), generator=draw.generator).tolist()
        logits = split_heads(model(to_unit(images[draw.rows]).roll(shift, (2, 3))), heads)
        losses = {head: F.cross_entropy(logits[head], labels[head][draw.rows]) for head in heads}
        descend(sum(losses.values()), optimizer, decay)
        return {head: loss.item() for head, loss in losses.items()}

    parts = {"model": model.train(), "optimizer": optimizer, "decay": decay}
    fit(name, settings, len(images), parts, one_step, inputs)
    model.eval()


def main() -> None:
    settings = Settings.load().backbone
    torch.manual_seed(settings.seed)
    model = timm.create_model(ARCHITECTURE, num_classes=sum(len(words) for words in HEADS.values()))
    train(model, HEADS, "backbone", settings, stage_inputs("backbone"))
    save(model)


if __name__ == "__main__":
    main()

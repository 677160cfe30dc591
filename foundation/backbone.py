"""Trains the backbone to name colour, ground and pattern, never the garment: a start from other
labels.
"""

import json

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from foundation import BUILD
from foundation.corpus import COLOURS, GROUNDS, PATTERNS, SIZE
from foundation.settings import Settings
from foundation.training import Log, batches, load_corpus, schedule, to_unit

DIRECTORY = BUILD / "backbone"
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
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), DIRECTORY / "model.safetensors", metadata={"format": "pt"})
    (DIRECTORY / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def split_heads(logits: Tensor, heads: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Split the columns of joint logits, (N, sum of words), into one block for each head."""
    return dict(
        zip(heads, logits.split([len(words) for words in heads.values()], dim=1), strict=True)
    )


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
    steps: int,
    batch_size: int,
    rate: float,
    seed: int,
) -> None:
    """Train a network on the corpus with one cross-entropy for each head, garments shifted by up to
    2 px.
    """
    generator = torch.Generator().manual_seed(seed)
    images, table = load_corpus("train")
    labels = targets({head: table[head].tolist() for head in heads}, heads)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    decay = schedule(optimizer, steps)
    model.train()
    with Log(name) as log:
        for step, rows in enumerate(batches(len(images), batch_size, steps, generator)):
            shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
            logits = split_heads(model(to_unit(images[rows]).roll(shift, (2, 3))), heads)
            losses = {head: F.cross_entropy(logits[head], labels[head][rows]) for head in heads}
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            decay.step()
            log.add(step, **{head: loss.item() for head, loss in losses.items()})
    model.eval()


def main() -> None:
    settings = Settings.load().backbone
    torch.manual_seed(settings.seed)
    model = timm.create_model(ARCHITECTURE, num_classes=sum(len(words) for words in HEADS.values()))
    train(
        model,
        HEADS,
        "backbone",
        settings.steps,
        settings.batch_size,
        settings.learning_rate,
        settings.seed,
    )
    save(model)


if __name__ == "__main__":
    main()

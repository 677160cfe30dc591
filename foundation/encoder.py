"""Trains the encoder, a small CLIP, on captions of several phrasings."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from foundation import tokenizer
from foundation.attributes import PROPERTIES, SIZE
from foundation.captions import draw_captions
from foundation.paths import ENCODER
from foundation.settings import Settings
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs, to_unit

# Of the text states and of the shared space: image embeddings can stand in for text states.
WIDTH = 96


def build(words: CLIPTokenizer) -> CLIPModel:
    """Build the two towers for a tokenizer."""
    text = {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizer.LENGTH,
        "projection_dim": WIDTH,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": 4,
        "projection_dim": WIDTH,
    }
    return CLIPModel(
        CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=WIDTH, initializer_factor=2.0
        )
    )


def processor(words: CLIPTokenizer) -> CLIPProcessor:
    """Pair the tokenizer with the image processor: 32 px, values in [-1, 1]."""
    size = {"height": SIZE, "width": SIZE}
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return CLIPProcessor(images, words)


def matches(attributes: Tensor, states: Tensor) -> Tensor:
    """Find which caption is true of which image: (N, P) codes and (N, P) stated flags to (N images,
    N captions).
    """
    return (~states | (attributes[:, None] == attributes[None])).all(2)


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Compare images and captions in both directions, sharing the target among all true pairs; a
    scalar.
    """
    target = true.float()
    return 0.5 * sum(
        F.cross_entropy(scores, pairs / pairs.sum(1, keepdim=True))
        for scores, pairs in ((logits, target), (logits.T, target.T))
    )


def main() -> None:
    settings = Settings.load().encoder
    torch.manual_seed(settings.seed)
    images, table = load_corpus("train")
    codes = torch.from_numpy(
        np.stack([table[name].astype("category").cat.codes for name in PROPERTIES], 1)
    )
    words = tokenizer.build()
    model = build(words)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.05)
    decay = schedule(optimizer, settings.steps)

    def one_step(draw: Draw) -> dict[str, float]:
        captions, states = draw_captions(table.iloc[draw.rows.numpy()], draw.rng)
        tokens = words(captions, padding="max_length", truncation=True, return_tensors="pt")
        output = model(input_ids=tokens.input_ids, pixel_values=to_unit(images[draw.rows]))
        true = matches(codes[draw.rows], torch.from_numpy(states))
        loss = contrastive_loss(output.logits_per_image, true)
        descend(loss, optimizer, decay)
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6052)
            hit = true.gather(1, output.logits_per_image.argmax(1, keepdim=True)).float().mean()
        return {"loss": loss.item(), "retrieval": hit.item()}

    parts = {"model": model, "optimizer": optimizer, "decay": decay}
    fit("encoder", settings, len(images), parts, one_step, stage_inputs("encoder"))
    model.save_pretrained(ENCODER)
    both = processor(words)
    both.save_pretrained(ENCODER)
    both.image_processor.save_pretrained(ENCODER)


if __name__ == "__main__":
    main()

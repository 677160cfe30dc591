"""Trains the captioner, a small BLIP, to describe every image in the same word order.

Its image tower starts as the encoder's, which already knows the garments.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPModel,
    CLIPVisionModel,
)

from foundation import image_tower
from foundation.attributes import COLOURS, GROUNDS, PATTERNS, SHADES, SIZE
from foundation.captions import NOUNS, describe
from foundation.paths import CAPTIONER, IMAGE_TOWER
from foundation.settings import Settings
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs, to_unit

LENGTH = 16  # tokens of a caption


def tokenizer() -> BertTokenizer:
    """Build a WordPiece tokenizer whose pieces are the words of the captions, letters and
    digits.
    """
    words = (
        " ".join([*NOUNS.values(), *COLOURS, *SHADES, *GROUNDS, *PATTERNS])
        .replace("-", " ")
        .split()
    )
    fixed = ["on", "background", "photo", "of", "long", "short", "wide", "narrow", ",", "-", "."]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *fixed, *words]))}
    built = BertTokenizer(vocab=vocabulary)
    built.model_max_length = 2 * LENGTH
    return built


def build(words: BertTokenizer) -> BlipForConditionalGeneration:
    """Build the network for a tokenizer."""
    text = {
        "vocab_size": len(words),
        "hidden_size": 96,
        "encoder_hidden_size": image_tower.TOWER["hidden_size"],
        "intermediate_size": 384,
        "projection_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2 * LENGTH,
        "bos_token_id": words.cls_token_id,
        "eos_token_id": words.sep_token_id,
        "sep_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {**image_tower.TOWER, "hidden_act": "quick_gelu"}
    return BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=vision, projection_dim=96)
    )


@torch.no_grad()
def adopt(model: BlipForConditionalGeneration, tower: CLIPVisionModel, images: Tensor) -> None:
    """Start the image tower as a CLIP one, whose first layer norm is folded into the embeddings at
    its mean scale.
    """
    source = tower.state_dict()
    norm = tower.pre_layrnorm
    scale = norm.weight / tower.embeddings(to_unit(images)).std(2).mean()
    centred = {
        name: source[f"embeddings.{name}"] - source[f"embeddings.{name}"].mean(axis, keepdim=True)
        for name, axis in (
            ("class_embedding", 0),
            ("patch_embedding.weight", 0),
            ("position_embedding.weight", 1),
        )
    }
    state = model.vision_model.state_dict()
    state["embeddings.class_embedding"][0, 0] = centred["class_embedding"] * scale
    state["embeddings.patch_embedding.weight"].copy_(
        centred["patch_embedding.weight"] * scale[:, None, None, None]
    )
    state["embeddings.patch_embedding.bias"].zero_()
    state["embeddings.position_embedding"][0] = (
        centred["position_embedding.weight"] * scale + norm.bias
    )
    for kind in ("weight", "bias"):
        state[f"post_layernorm.{kind}"].copy_(source[f"post_layernorm.{kind}"])
        for i in range(len(tower.encoder.layers)):
            layer = f"encoder.layers.{i}"
            attention = [source[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[f"{layer}.self_attn.qkv.{kind}"].copy_(torch.cat(attention))
            state[f"{layer}.self_attn.projection.{kind}"].copy_(
                source[f"{layer}.self_attn.out_proj.{kind}"]
            )
            for name in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{layer}.{name}.{kind}"].copy_(source[f"{layer}.{name}.{kind}"])


def word_weights(words: BertTokenizer) -> Tensor:
    """Weight the words that name the garment more than the rest: (vocabulary,)."""
    weights = torch.ones(len(words))
    weights[words.convert_tokens_to_ids(words.tokenize(" ".join(NOUNS.values()))[1:])] = 4
    return weights


def processor(words: BertTokenizer) -> BlipProcessor:
    """Pair the tokenizer with the image processor: 32 px, values in [-1, 1]."""
    size = {"height": SIZE, "width": SIZE}
    return BlipProcessor(
        BlipImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3), words
    )


def main() -> None:
    settings = Settings.load().captioner
    torch.manual_seed(settings.seed)
    images, table = load_corpus("train")
    captions = [describe(row) for row in table.to_dict("records")]
    words = tokenizer()
    model = build(words)
    tower = CLIPModel.from_pretrained(IMAGE_TOWER).vision_model
    adopt(model, tower, images[:1024])
    weights = word_weights(words)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.05)
    decay = schedule(optimizer, settings.steps)

    def one_step(draw: Draw) -> dict[str, float]:
        tokens = words([captions[i] for i in draw.rows], padding=True, return_tensors="pt")
        labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
        logits = model(
            pixel_values=to_unit(images[draw.rows]),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
        ).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), weights)
        descend(loss, optimizer, decay)
        return {"loss": loss.item()}

    parts = {"model": model, "optimizer": optimizer, "decay": decay}
    fit("captioner", settings, len(images), parts, one_step, stage_inputs("captioner"))
    model.save_pretrained(CAPTIONER)
    both = processor(words)
    both.save_pretrained(CAPTIONER)
    both.image_processor.save_pretrained(CAPTIONER)


if __name__ == "__main__":
    main()

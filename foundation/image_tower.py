"""Trains the encoder's final image tower, and both projections, against the text tower of
``encoder``.

The text tower stays as it is, because the generator reads its states. The image tower is new:
patches of 8 px instead of 4 make a step four times cheaper, and positions that start as sines and
cosines need not be learnt first. It learns classes from the judge's soft labels, which tell a small
network more in few steps than the true ones.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from foundation import backbone, encoder, judge
from foundation.attributes import CLASS_NAMES, PROPERTIES, SIZE
from foundation.captions import draw_captions
from foundation.encoder import contrastive_loss, matches
from foundation.muon import Muon
from foundation.paths import ENCODER, IMAGE_TOWER
from foundation.settings import Settings
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs, to_unit

TOWER = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
    "projection_dim": encoder.WIDTH,
}


def positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column: (side * side, width)."""
    angles = torch.arange(side)[:, None] / 100 ** (torch.arange(width // 4) / (width // 4))
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([waves.repeat_interleave(side, 0), waves.repeat(side, 1)], 1)


def build(text: CLIPModel) -> CLIPModel:
    """Build an encoder with a new image tower and the text tower, the projection and the scale of
    another.
    """
    config = CLIPConfig(
        text_config=text.config.text_config.to_dict(),
        vision_config=TOWER,
        projection_dim=encoder.WIDTH,
    )
    model = CLIPModel(config)
    model.text_model.load_state_dict(text.text_model.state_dict())
    model.text_projection.load_state_dict(text.text_projection.state_dict())
    model.logit_scale.data.copy_(text.logit_scale)
    embeddings = model.vision_model.embeddings
    nn.init.normal_(
        embeddings.patch_embedding.weight, std=1 / math.sqrt(3 * TOWER["patch_size"] ** 2)
    )
    with torch.no_grad():
        embeddings.position_embedding.weight[0] = 0
        embeddings.position_embedding.weight[1:] = 0.5 * positions(
            SIZE // TOWER["patch_size"], TOWER["hidden_size"]
        )
    return model


def class_prompt(name: str) -> str:
    """Write the prompt that zero-shot recognition uses for a class."""
    return f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}"


def soft_labels(images: Tensor) -> Tensor:
    """The judge's probabilities of the classes for uint8 images: (N, 10)."""
    return backbone.score(judge.load(), images, judge.HEADS)["class"].softmax(1)


def main() -> None:
    settings = Settings.load().image_tower
    images, table = load_corpus("train")
    codes = torch.from_numpy(
        np.stack([table[name].astype("category").cat.codes for name in PROPERTIES], 1)
    )
    labels = soft_labels(images)
    torch.manual_seed(settings.seed)
    model = build(CLIPModel.from_pretrained(ENCODER))
    processor = CLIPProcessor.from_pretrained(ENCODER)

    model.text_model.requires_grad_(False)
    model.logit_scale.requires_grad_(False)

    def embed(prompts: list[str]) -> Tensor:
        tokens = processor.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        return F.normalize(model.get_text_features(tokens.input_ids).pooler_output, dim=-1)

    trained = [model.vision_model, model.visual_projection, model.text_projection]
    parameters = [parameter for module in trained for parameter in module.parameters()]
    optimizer = Muon(parameters, settings.learning_rate, weight_decay=0.05)
    decay = schedule(optimizer, settings.steps)
    prompts = [class_prompt(name) for name in CLASS_NAMES]
    scale = model.logit_scale.detach().exp()

    def one_step(draw: Draw) -> dict[str, float]:
        captions, states = draw_captions(table.iloc[draw.rows.numpy()], draw.rng)
        shift = torch.randint(-1, 2, (2,), generator=draw.generator).tolist()
        pixels = to_unit(images[draw.rows]).roll(shift, (2, 3))
        features = F.normalize(model.get_image_features(pixels).pooler_output, dim=-1)
        true = matches(codes[draw.rows], torch.from_numpy(states))
        caption_loss = contrastive_loss(scale * features @ embed(captions).T, true)
        class_loss = F.cross_entropy(scale * features @ embed(prompts).T, labels[draw.rows])
        descend(caption_loss + 2 * class_loss, optimizer, decay)
        return {"caption_loss": caption_loss.item(), "class_loss": class_loss.item()}

    parts = {"model": model, "optimizer": optimizer, "decay": decay}
    fit("image_tower", settings, len(images), parts, one_step, stage_inputs("image_tower"))
    model.save_pretrained(IMAGE_TOWER)
    processor.save_pretrained(IMAGE_TOWER)
    processor.image_processor.save_pretrained(IMAGE_TOWER)


if __name__ == "__main__":
    main()

"""Opens the encoder: CLIP's image tower, whose features guide, score and judge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel
from transformers.utils.logging import disable_progress_bar

from truelike.runtime.devices import device, torch_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, model_type, resolve, variant

disable_progress_bar()  # bars for loading would hide those of the work itself


@dataclass(frozen=True)
class Encoder:
    """A CLIP model with its image processor."""

    model: Any
    processor: Callable[..., Any]

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray, batch_size: int) -> np.ndarray:
        """Embed uint8 images (N, H, W, 3) into float32 (N, D): projected, not normalised.

        Images are resized as the checkpoint's own processor says.
        """
        features = [np.zeros((0, self.model.config.projection_dim), np.float32)]
        for start in range(0, len(pixels), batch_size):
            images = [Image.fromarray(image) for image in pixels[start : start + batch_size]]
            inputs = self.processor(images=images, return_tensors="pt")["pixel_values"]
            output = self.model.get_image_features(inputs.to(self.model.device, self.model.dtype))
            features.append(output.pooler_output.float().cpu().numpy())
        return np.concatenate(features)


def features(encoder: Encoder, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The function of `map_images`: the embeddings of a batch."""
    return {"embedding": encoder.embed(pixels, len(pixels))}


def open_encoder(model: Model) -> Encoder:
    """Open a CLIP checkpoint; raises TruelikeError if there is none or if it is of another kind."""
    folder = resolve(model.path)
    if (found := model_type(folder)) != "clip":
        raise TruelikeError(
            f"models.encoder: {model.path} holds a model of type {found!r}, expected 'clip'"
        )
    opened = CLIPModel.from_pretrained(
        folder, dtype=torch_dtype(model.dtype), use_safetensors=True, **variant(model.path)
    )
    return Encoder(opened.to(device()).eval(), CLIPImageProcessor.from_pretrained(folder))

"""Opens the captioner: BLIP, BLIP-2, ViT-GPT2 and other image-to-text models of transformers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from truelike.runtime.devices import device, torch_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, model_type, resolve, variant

disable_progress_bar()  # bars for loading would hide those of the work itself

INSTRUCTION = "Describe this image in one short sentence."  # for models that chat


@dataclass(frozen=True)
class Captioner:
    """An image-to-text model with its image processor and tokenizer; `processor` is None where they
    are separate.
    """

    model: Any
    processor: Any
    image_processor: Any
    tokenizer: Any

    @torch.inference_mode()
    def caption(self, pixels: np.ndarray, max_tokens: int) -> tuple[list[str], list[bool]]:
        """Caption uint8 images (N, H, W, 3) greedily with at most `max_tokens` tokens each.

        Returns the captions and, for each, whether it was cut off at `max_tokens`. CiP, section
        3.2.
        """
        inputs = self._inputs([Image.fromarray(image) for image in pixels]).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        tokens = self.model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1
        )
        queries = getattr(
            self.model.config, "num_query_tokens", 0
        )  # BLIP-2 puts these before what it writes
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else queries
        if not self.model.config.is_encoder_decoder and tokens.shape[1] > prompt:
            tokens = tokens[:, prompt:]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ends = torch.tensor(self._end_tokens(), device=tokens.device)
        cut = ~torch.isin(tokens[:, 1:], ends).any(dim=1)
        return [" ".join(text.split()) for text in texts], cut.tolist()

    def _inputs(self, images: list[Image.Image]) -> Any:
        if getattr(self.processor, "chat_template", None):
            chat = [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": INSTRUCTION}],
                }
            ]
            text = self.processor.apply_chat_template(chat, add_generation_prompt=True)
            return self.processor(
                images=[[image] for image in images],
                text=[text] * len(images),
                return_tensors="pt",
                padding=True,
            )
        return (self.processor or self.image_processor)(images=images, return_tensors="pt")

    def _end_tokens(self) -> list[int]:
        """Tokens that end a caption, by the generation settings, the text model's settings and the
        tokenizer.
        """
        settings = self.model.generation_config
        text = getattr(self.model.config, "text_config", None)
        candidates = [
            settings.eos_token_id,
            settings.pad_token_id,
            getattr(text, "sep_token_id", None),
        ]
        candidates += [
            self.tokenizer.eos_token_id,
            self.tokenizer.sep_token_id,
            self.tokenizer.pad_token_id,
        ]
        flat = [
            token for item in candidates for token in (item if isinstance(item, list) else [item])
        ]
        return sorted({int(token) for token in flat if token is not None})


def captions(captioner: Captioner, pixels: np.ndarray, max_tokens: int) -> dict[str, np.ndarray]:
    """The function of `map_images`: captions, and whether each was cut off."""
    texts, cut = captioner.caption(pixels, max_tokens)
    return {"caption": np.array(texts, dtype=str), "truncated": np.array(cut)}


def open_captioner(model: Model) -> Captioner:
    """Open a captioner by its config's model type; raises TruelikeError if there is none or if it
    cannot caption.
    """
    folder = resolve(model.path)
    found = model_type(folder)
    if found not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise TruelikeError(
            f"models.captioner: {model.path} holds a model of type {found!r}, which does not "
            "caption images; known are 'blip', 'blip-2', 'vision-encoder-decoder' and other "
            "image-text-to-text models"
        )
    opened = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch_dtype(model.dtype), use_safetensors=True, **variant(model.path)
    )
    opened = opened.to(device()).eval()
    if found == "vision-encoder-decoder":  # ViT-GPT2 has no processor that joins the two
        return Captioner(
            opened,
            None,
            AutoImageProcessor.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )
    processor = AutoProcessor.from_pretrained(folder)
    return Captioner(opened, processor, processor.image_processor, processor.tokenizer)

"""Opens the captioner: BLIP, BLIP-2, ViT-GPT2 and other image-to-text models of transformers."""

from collections.abc import Sequence
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

    @property
    def chats(self) -> bool:
        """Whether it answers a request; otherwise it continues a text."""
        return bool(getattr(self.processor, "chat_template", None))

    def caption(
        self, pixels: np.ndarray, max_tokens: int, instructions: Sequence[str] | None = None
    ) -> tuple[list[str], list[bool]]:
        """Caption uint8 images (N, H, W, 3) greedily with at most `max_tokens` tokens each.

        `instructions` are a request each where it chats, or else a text each that the caption
        continues. Returns the captions, without their instructions, and for each whether it was
        cut off at `max_tokens`. CiP, section 3.2.
        """
        if instructions is None:
            return self._caption(pixels, max_tokens, None)
        texts, cut = [""] * len(pixels), [False] * len(pixels)
        lengths = np.array([len(self.tokenizer(text).input_ids) for text in instructions])
        for length in np.unique(lengths):  # what is as long needs no padding
            rows = np.flatnonzero(lengths == length).tolist()
            found = self._caption(pixels[rows], max_tokens, [instructions[row] for row in rows])
            for row, text, was_cut in zip(rows, *found, strict=True):
                texts[row], cut[row] = text, was_cut
        return texts, cut

    @torch.inference_mode()
    def _caption(
        self, pixels: np.ndarray, max_tokens: int, instructions: Sequence[str] | None
    ) -> tuple[list[str], list[bool]]:
        """Captions of images whose instructions have as many tokens."""
        images = [Image.fromarray(image) for image in pixels]
        inputs = self._inputs(images, instructions).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        tokens = self.model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1
        )
        tokens = tokens[:, self._prompt_length(inputs, tokens) :]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ends = torch.tensor(self._end_tokens(), device=tokens.device)
        cut = ~torch.isin(tokens[:, 1:], ends).any(dim=1)
        return [" ".join(text.split()) for text in texts], cut.tolist()

    def _inputs(self, images: list[Image.Image], instructions: Sequence[str] | None) -> Any:
        if self.chats:
            requests = instructions or [INSTRUCTION] * len(images)
            return self.processor(
                images=[[image] for image in images],
                text=[self._request(request) for request in requests],
                return_tensors="pt",
                padding=True,
            )
        if instructions is None:
            return (self.processor or self.image_processor)(images=images, return_tensors="pt")
        if self.processor is not None:
            return self.processor(images=images, text=list(instructions), return_tensors="pt")
        inputs = self.image_processor(images=images, return_tensors="pt")
        ids = self.tokenizer(list(instructions), add_special_tokens=False, return_tensors="pt")
        start = torch.full((len(images), 1), self.model.generation_config.decoder_start_token_id)
        inputs["decoder_input_ids"] = torch.cat([start, ids.input_ids], dim=1)
        return inputs

    def _request(self, instruction: str) -> str:
        """What a model that chats is asked about an image."""
        content = [{"type": "image"}, {"type": "text", "text": instruction}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True)

    def _prompt_length(self, inputs: Any, tokens: torch.Tensor) -> int:
        """How many of the generated `tokens` (N, T) repeat what was given."""
        config = self.model.config
        if "decoder_input_ids" in inputs:
            return inputs["decoder_input_ids"].shape[1]
        if "input_ids" not in inputs:  # BLIP-2 puts its queries before what it writes
            given = getattr(config, "num_query_tokens", 0)
        else:  # BLIP leaves out the token that ends the text
            given = inputs["input_ids"].shape[1] - (config.model_type == "blip")
        return given if not config.is_encoder_decoder and tokens.shape[1] > given else 0

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


def captions(
    captioner: Captioner,
    pixels: np.ndarray,
    max_tokens: int,
    instructions: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """The function of `map_images`: captions, and whether each was cut off."""
    texts, cut = captioner.caption(pixels, max_tokens, instructions)
    return {"caption": np.array(texts, dtype=str), "truncated": np.array(cut)}


def captions_again(
    captioner: Captioner,
    pixels: np.ndarray,
    class_names: Sequence[str],
    beginnings: Sequence[str],
    instructions: Sequence[str],
    max_tokens: int,
) -> dict[str, np.ndarray]:
    """Captions of images whose class is told, and whether each was cut off.

    A captioner that chats is told it before its instruction, or the usual request where that is
    empty. Others continue ``INSTRUCTION BEGINNING CLASS``, and the caption is all but the
    instruction.
    """
    if captioner.chats:
        asked = [
            f"This is a picture of: {name}. {instruction or INSTRUCTION}"
            for name, instruction in zip(class_names, instructions, strict=True)
        ]
        return captions(captioner, pixels, max_tokens, asked)
    told = [f"{words} {name}".strip() for words, name in zip(beginnings, class_names, strict=True)]
    asked = [f"{words} {own}".strip() for words, own in zip(instructions, told, strict=True)]
    made = captions(captioner, pixels, max_tokens, asked)
    texts = [f"{own} {text}".strip() for own, text in zip(told, made["caption"], strict=True)]
    return made | {"caption": np.array(texts, dtype=str)}


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

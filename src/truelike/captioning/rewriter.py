"""Opens the language model that rewrites captions: a causal or sequence-to-sequence model of
transformers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils.logging import disable_progress_bar

from truelike.runtime.devices import device, torch_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, model_type, resolve, variant

disable_progress_bar()  # bars for loading would hide those of the work itself


@dataclass(frozen=True)
class Rewriter:
    """A language model with its tokenizer."""

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def rewrite(self, request: str, count: int, max_tokens: int, seed: int) -> list[str]:
        """Sample `count` answers of at most `max_tokens` tokens each; they depend on request and
        seed alone.
        """
        if self.tokenizer.chat_template:
            request = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": request}], add_generation_prompt=True, tokenize=False
            )
        special = not self.tokenizer.chat_template  # a chat template writes them itself
        inputs = self.tokenizer([request], add_special_tokens=special, return_tensors="pt").to(
            self.model.device
        )
        torch.manual_seed(seed)
        tokens = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            num_return_sequences=count,
            max_new_tokens=max_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        if not self.model.config.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()).strip('"') for text in texts]


def open_rewriter(model: Model) -> Rewriter:
    """Open a language model by its config's model type; raises TruelikeError if there is none or it
    does not write.
    """
    folder = resolve(model.path)
    found = model_type(folder)
    if found in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        family: Any = AutoModelForSeq2SeqLM
    elif found in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        family = AutoModelForCausalLM
    else:
        raise TruelikeError(
            f"models.rewriter: {model.path} holds a model of type {found!r}, which does not write "
            "text; give a causal or sequence-to-sequence language model, such as Qwen2, Llama or T5"
        )
    opened = family.from_pretrained(
        folder, dtype=torch_dtype(model.dtype), use_safetensors=True, **variant(model.path)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Rewriter(opened.to(device()).eval(), tokenizer)

"""Text-to-image models at their real size with random weights, from architectures.yaml."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import nn

from truelike.runtime.yaml import read_yaml

FILE = Path(__file__).with_suffix(".yaml")


class Architecture(NamedTuple):
    """A row of architectures.yaml: the hub repository with the configs, the recipes, the pipeline's
    class and the config of each of its parts.
    """

    source: str
    recipe: list[str]
    pipeline: str
    parts: dict[str, dict[str, Any]]


def architectures() -> dict[str, Architecture]:
    """All rows by name."""
    return {name: Architecture(**row) for name, row in read_yaml(FILE).items()}


def clip_tokenizer(vocab_size: int, length: int) -> Any:
    """A CLIP tokenizer of single letters, filled up with unused words to its real size."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words += [f"<unused{number}>" for number in range(vocab_size - len(words) - len(ends))]
    vocab = {word: number for number, word in enumerate([*words, *ends])}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    tokenizer.model_max_length = length
    return tokenizer


def t5_tokenizer(vocab_size: int, length: int) -> Any:
    """A T5 tokenizer of single letters, filled up with unused words to its real size."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(code) for code in range(33, 127))]
    pieces += [f"<unused{number}>" for number in range(vocab_size - len(pieces))]
    vocab = [(piece, 0.0) for piece in pieces]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def word_tokenizer(length: int) -> Any:
    """A language model's tokenizer in which every word and mark is the same token: prompts and what
    is written around them have about as many as in the real one.
    """
    model = Tokenizer(WordLevel({"<pad>": 0, "<word>": 1}, "<word>"))
    model.pre_tokenizer = Split(Regex(r"<\|\w+\|>|</?\w+>| ?\w+|\W"), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        unk_token="<word>",
        padding_side="right",
        model_max_length=length,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


CHAT = (  # Qwen3's, of a user's message
    "{% for message in messages %}<|im_start|>user\n{{ message['content'] }}<|im_end|>\n"
    "<|im_start|>assistant\n{% endfor %}"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
TOKENIZERS: dict[str, Callable[..., Any]] = {
    "CLIPTokenizer": clip_tokenizer,
    "T5Tokenizer": t5_tokenizer,
    "GemmaTokenizer": word_tokenizer,
    "Qwen2Tokenizer": word_tokenizer,
}


def build(architecture: Architecture, where: torch.device | None = None) -> Any:
    """The pipeline with random weights, float32, drawn on the device `where`: `architecture` of
    real size, or fake under a FakeTensorMode.
    """
    parts = {name: build_part(config, where) for name, config in architecture.parts.items()}
    kind = getattr(diffusers, architecture.pipeline)
    if kind is diffusers.StableDiffusionPipeline:
        unused = {"safety_checker": None, "feature_extractor": None}
        return kind(**parts, **unused, requires_safety_checker=False)
    return kind(**parts)


def build_part(config: dict[str, Any], where: torch.device | None = None) -> Any:
    """A tokenizer, scheduler, or model with random weights in evaluation mode."""
    options = dict(config)
    name = options.pop("class")
    if name in TOKENIZERS:
        return TOKENIZERS[name](**options)
    kind = getattr(diffusers, name, None) or getattr(transformers, name)
    if not issubclass(kind, nn.Module):
        return kind(**options)
    with where or nullcontext():
        part = kind(**options) if hasattr(diffusers, name) else kind(kind.config_class(**options))
    return part.eval()

"""Builds the byte-level BPE tokenizer of the encoder: any text is covered, prompt words are whole
tokens.
"""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from foundation import ROOT
from foundation.attributes import CLASS_NAMES, COLOURS, GROUNDS, PATTERNS, SHADES

LENGTH = 40  # tokens of a prompt, with the first and last
SUFFIX = "</w>"


def build() -> CLIPTokenizer:
    """Train merges until every word of the captions and of ``prompt_words.txt`` is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    tokenizer.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        end_of_word_suffix=SUFFIX,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    words = (ROOT / "prompt_words.txt").read_text().split()
    tokenizer.train_from_iterator(
        [*CLASS_NAMES, *COLOURS, *SHADES, *GROUNDS, *PATTERNS, *words], trainer
    )
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = [
        *alphabet,
        *(letter + SUFFIX for letter in alphabet),
        *("".join(pair) for pair in merges),
    ]
    vocabulary = {
        piece: i
        for i, piece in enumerate([*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"])
    }
    built = CLIPTokenizer(vocab=vocabulary, merges=merges)
    built.model_max_length = LENGTH  # the constructor does not take it
    return built

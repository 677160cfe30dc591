"""The conditioning of any number of prompts, made once and mapped from the scratch folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from truelike.generator.family import Conditioning
from truelike.generator.generator import Generator
from truelike.runtime.scratch import stack_on_disk

BATCH = 8  # prompts at once on an accelerator; a CPU takes one, so no neighbour changes its bytes


@dataclass(frozen=True)
class PromptStates:
    """A flat row for each distinct prompt, and negative prompt, on disk, with the shapes of the
    tensors in it.
    """

    rows: Tensor
    positions: dict[tuple[str, bool], int]
    shapes: dict[str, torch.Size]

    def of(self, prompts: Sequence[str], negative: bool = False) -> Conditioning:
        """The conditioning of some of the prompts, each tensor (N, ...) on the CPU."""
        chosen = self.rows[[self.positions[prompt, negative] for prompt in prompts]]
        parts = chosen.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.reshape(len(prompts), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


@torch.no_grad()
def map_states(
    generator: Generator, prompts: Sequence[str], negatives: Sequence[str] = ()
) -> PromptStates:
    """Encode each distinct prompt, and each negative or empty one; the text encoders must be on the
    generator's device.
    """
    kinds = [(generator.encode, prompts), (generator.encode_negative, negatives)]
    distinct = [list(dict.fromkeys(texts)) for _, texts in kinds]
    first = generator.encode(distinct[0][:1])
    shapes = {name: value.shape[1:] for name, value in first.items()}
    (dtype,) = {value.dtype for value in first.values()}
    size = BATCH if generator.on_gpu else 1

    def rows() -> Iterator[np.ndarray]:
        for (encode, _), texts in zip(kinds, distinct, strict=True):
            for start in range(0, len(texts), size):
                states = encode(texts[start : start + size])
                flat = torch.cat([value.flatten(1) for value in states.values()], dim=1).cpu()
                yield from flat.view(_storage(dtype)).numpy()

    keys = [(text, bool(kind)) for kind, texts in enumerate(distinct) for text in texts]
    positions = {key: position for position, key in enumerate(keys)}
    stored = torch.from_numpy(stack_on_disk(rows()))
    return PromptStates(stored.view(dtype), positions, shapes)


def _storage(dtype: torch.dtype) -> torch.dtype:
    """A type of the same size that numpy knows: it has no bfloat16."""
    return torch.int16 if dtype.itemsize == 2 else dtype

"""What the UNet is told: the states of a prompt's tokens, the last of them replaced under visual guidance (RF)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truelike.config import VisualGuidance
from truelike.errors import TruelikeError


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids of shape (N, L), padded and cut to the tokenizer's limit."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def encode_prompts(pipeline: Any, prompts: Sequence[str], cache: dict[str, Tensor] | None = None) -> Tensor:
    """The last hidden states of prompts, (N, L, W), each distinct prompt encoded once.

    Prompts are encoded one by one, so that a prompt's states do not depend on its neighbours.
    """
    states = {} if cache is None else cache
    for prompt in dict.fromkeys(prompts):
        if prompt not in states:
            tokens = tokenize(pipeline.tokenizer, [prompt]).to(pipeline.device)
            states[prompt] = pipeline.text_encoder(tokens)[0][0]
    return torch.stack([states[prompt] for prompt in prompts])


def guidance_vectors(
    features: np.ndarray, labels: np.ndarray, settings: VisualGuidance, width: int
) -> np.ndarray | None:
    """The vector that guides each image, float32 (N, D), or None when guidance is off.

    `features` (N, D) are un-normalised image embeddings, `labels` int (N,). ``class_kmeans`` takes the nearest of at
    most `settings.centroids` centroids of the image's class. Raises TruelikeError unless D is `width`, that of the
    generator's text states.
    """
    if settings.kind == "off":
        return None
    if features.shape[1] != width:
        raise TruelikeError(
            f"visual_guidance.kind is {settings.kind!r}, but models.encoder gives features of width "
            f"{features.shape[1]} and the generator's text states have width {width}: "
            f"use an encoder whose projection has width {width} "
            "(for Stable Diffusion 1.x: openai/clip-vit-large-patch14, 768), or set visual_guidance.kind to 'off'"
        )
    if settings.kind == "image":
        return features
    from sklearn.cluster import KMeans  # a second of import that few runs need

    vectors = np.empty_like(features)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if settings.kind == "class_mean":
            vectors[members] = features[members].mean(axis=0)
        else:
            kmeans = KMeans(min(settings.centroids, len(members)), n_init=10, random_state=0).fit(features[members])
            vectors[members] = kmeans.cluster_centers_[kmeans.labels_]
    return vectors


def guide(states: Tensor, vectors: Tensor) -> Tensor:
    """Replace the last token's state: states[:, -1, :] = f; states (N, L, W), vectors (N, W)."""
    guided = states.clone()
    guided[:, -1, :] = vectors.to(states)
    return guided

"""What the denoiser is told: a prompt's states, the last of them replaced under visual guidance
(RF).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truelike.generator.families import Conditioning, family_of
from truelike.generator.settings import VisualGuidance
from truelike.runtime.errors import TruelikeError

CACHED = 1024  # prompts whose states are kept


def encode_prompts(
    pipeline: Any, prompts: Sequence[str], cache: dict[str, Conditioning] | None = None
) -> Conditioning:
    """The conditioning of prompts, each tensor (N, ...); each distinct prompt is encoded once.

    Prompts are encoded one by one, so that a prompt's states do not depend on its neighbours.
    `cache` keeps those of the last CACHED prompts.
    """
    cache = {} if cache is None else cache
    for prompt in dict.fromkeys(prompts):
        cache[prompt] = (
            cache.pop(prompt) if prompt in cache else family_of(pipeline).encode(pipeline, prompt)
        )
    states = {
        name: torch.cat([cache[prompt][name] for prompt in prompts]) for name in cache[prompts[0]]
    }
    for prompt in list(cache)[:-CACHED]:
        del cache[prompt]
    return states


def guidance_vectors(
    pipeline: Any, features: np.ndarray, labels: np.ndarray, settings: VisualGuidance
) -> np.ndarray | None:
    """The vector that guides each image, float32 (N, D), or None when guidance is off.

    `features` (N, D) are un-normalised image embeddings, `labels` int (N,). ``class_kmeans`` takes
    the nearest of at most `settings.centroids` centroids of the image's class. Raises TruelikeError
    unless the generator is of a family whose states one CLIP makes, and D is their width.
    """
    if settings.kind == "off":
        return None
    if not family_of(pipeline).visual_guidance:
        raise TruelikeError(
            f"visual_guidance.kind is {settings.kind!r}, but the text states of a "
            f"{type(pipeline).__name__} come from "
            "several encoders, and no image embedding stands for them: set visual_guidance.kind to "
            "'off'"
        )
    width = pipeline.unet.config.cross_attention_dim
    if features.shape[1] != width:
        raise TruelikeError(
            f"visual_guidance.kind is {settings.kind!r}, but models.encoder gives features of "
            "width "
            f"{features.shape[1]} and the generator's text states have width {width}: "
            f"use an encoder whose projection has width {width} "
            "(for Stable Diffusion 1.x: openai/clip-vit-large-patch14, 768), or set "
            "visual_guidance.kind to 'off'"
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
            kmeans = KMeans(min(settings.centroids, len(members)), n_init=10, random_state=0).fit(
                features[members]
            )
            vectors[members] = kmeans.cluster_centers_[kmeans.labels_]
    return vectors


def guide(conditioning: Conditioning, vectors: Tensor) -> Conditioning:
    """Replace the last token's state: states[:, -1, :] = f; states (N, L, W), vectors (N, W)."""
    states = conditioning["encoder_hidden_states"].clone()
    states[:, -1, :] = vectors.to(states)
    return conditioning | {"encoder_hidden_states": states}

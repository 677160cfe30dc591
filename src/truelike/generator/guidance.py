"""Visual guidance (RF): the last of a prompt's states is replaced by the embedding of an image."""

import numpy as np
from torch import Tensor

from truelike.generator.family import Conditioning, Family
from truelike.generator.generator import Generator
from truelike.generator.settings import VisualGuidance
from truelike.runtime.errors import TruelikeError


def guidance_vectors(
    generator: Generator, features: np.ndarray, labels: np.ndarray, settings: VisualGuidance
) -> np.ndarray | None:
    """The vector that guides each image, float32 (N, D), or None when guidance is off.

    `features` (N, D) are un-normalised image embeddings, `labels` int (N,). ``class_kmeans`` takes
    the nearest of at most `settings.centroids` centroids of the image's class. Raises TruelikeError
    unless the generator is of a family whose states one CLIP makes, and D is their width.
    """
    if settings.kind == "off":
        return None
    expected = generator.denoiser.config.get("cross_attention_dim")
    check_guidance(generator.family, generator.name, expected, features.shape[1], settings)
    if settings.kind == "image":
        return features
    from sklearn.cluster import KMeans  # a second of import that few runs need
    from threadpoolctl import threadpool_limits

    vectors = np.empty_like(features)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if settings.kind == "class_mean":
            vectors[members] = features[members].mean(axis=0)
        else:
            kmeans = KMeans(min(settings.centroids, len(members)), n_init=10, random_state=0)
            with threadpool_limits(1):  # several add up in the order in which they finish
                kmeans.fit(features[members])
            vectors[members] = kmeans.cluster_centers_[kmeans.labels_]
    return vectors


def check_guidance(
    family: Family, name: str, expected: int | None, width: int, settings: VisualGuidance
) -> None:
    """Raise TruelikeError unless features of this width can stand for a state of a generator of the
    class `name`, whose states have the `expected` width.
    """
    if not family.visual_guidance:
        raise TruelikeError(
            f"visual_guidance.kind is {settings.kind!r}, but the text states of a {name} come from "
            "several encoders, and no image embedding stands for them: set visual_guidance.kind to "
            "'off'"
        )
    if width != expected:
        raise TruelikeError(
            f"visual_guidance.kind is {settings.kind!r}, but models.encoder gives features of "
            f"width {width} and the generator's text states have width {expected}: use an encoder "
            f"whose projection has width {expected} (for Stable Diffusion 1.x: "
            "openai/clip-vit-large-patch14, 768), or set visual_guidance.kind to 'off'"
        )


def guide(conditioning: Conditioning, vectors: Tensor) -> Conditioning:
    """Replace the last token's state: states[:, -1, :] = f; states (N, L, W), vectors (N, W)."""
    states = conditioning["encoder_hidden_states"].clone()
    states[:, -1, :] = vectors.to(states)
    return conditioning | {"encoder_hidden_states": states}

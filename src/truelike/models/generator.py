"""Opens the generator: a Stable Diffusion pipeline, with a learned style and an adapter where there are any."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file

from truelike.data.imageset import ImageSet
from truelike.errors import TruelikeError
from truelike.models.source import device, resolve, torch_dtype, variant
from truelike.scratch import fingerprint

KIND = "StableDiffusionPipeline"
STYLE_FILE, EMBEDS_FILE = "style.json", "learned_embeds.safetensors"
ADAPTER_FILE, LORA_FILE = "adapter.json", "pytorch_lora_weights.safetensors"


class Record(BaseModel):
    """A small JSON file beside learned weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")


class Style(Record):
    """The content of ``style.json``: the learned tokens, and a fingerprint of their embeddings."""

    enabled: bool
    token: str = ""
    tokens: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] | None = None  # each class's own tokens, where every class has a style
    fingerprint: str = ""

    def text(self, class_name: str) -> str:
        """What stands for the style in a prompt of a class: every learned token, or the class's own, or nothing."""
        return " ".join(self.tokens if self.classes is None else self.classes[class_name])


class Adapter(Record):
    """The content of ``adapter.json``: a fingerprint of the LoRA weights and of the style they were trained with."""

    enabled: bool
    rank: int = 0
    alpha: int = 0
    style: str = ""
    fingerprint: str = ""


def read_style(folder: Path | None) -> Style:
    """Read ``style.json``; no folder is no style."""
    return Style.model_validate_json((folder / STYLE_FILE).read_text()) if folder else Style(enabled=False)


def read_adapter(folder: Path | None) -> Adapter:
    """Read ``adapter.json``; no folder is no adapter."""
    return Adapter.model_validate_json((folder / ADAPTER_FILE).read_text()) if folder else Adapter(enabled=False)


def identify(path: str) -> str:
    """A generator's name and the fingerprint of its files (of the pointer, for a hub model)."""
    return f"{path}@{fingerprint(None, path)}"


def open_generator(path: str, dtype: str) -> Any:
    """Open a Stable Diffusion pipeline for inference; raises TruelikeError if there is none or it is another kind."""
    folder = resolve(path, "model_index.json")
    found = json.loads((folder / "model_index.json").read_text())["_class_name"]
    if found != KIND:
        raise TruelikeError(f"models.generator: {path} holds a {found}, expected a {KIND}")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch_dtype(dtype), safety_checker=None, use_safetensors=True, **variant(path)
    )
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        model.requires_grad_(False).eval()
    return pipeline.to(device())


def add_tokens(pipeline: Any, tokens: list[str]) -> int:
    """Add new words to the tokenizer and text encoder, all other rows unchanged; return the id of the first.

    Raises TruelikeError if one is a word already.
    """
    known = [token for token in tokens if token in pipeline.tokenizer.get_vocab()]
    if known:
        raise TruelikeError(f"invert.token: {known[0]!r} is already a token of the generator; choose another word")
    pipeline.tokenizer.add_tokens(tokens)
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
    return int(pipeline.tokenizer.convert_tokens_to_ids(tokens[0]))


def add_style(pipeline: Any, folder: Path) -> Style:
    """Add the learned tokens to the tokenizer and text encoder; does nothing for a style that is not enabled.

    Raises TruelikeError if an embedding is missing, does not fit, or its token is already a word of the tokenizer.
    """
    style = read_style(folder)
    if not style.enabled:
        return style
    embeds = load_file(folder / EMBEDS_FILE)
    if sorted(embeds) != sorted(style.tokens):
        raise TruelikeError(f"{folder / EMBEDS_FILE}: holds {sorted(embeds)}, {STYLE_FILE} says {sorted(style.tokens)}")
    width = pipeline.text_encoder.get_input_embeddings().weight.shape[1]
    for token in style.tokens:
        if embeds[token].shape[-1] != width:
            raise TruelikeError(
                f"{folder / EMBEDS_FILE}: {token!r} has width {embeds[token].shape[-1]}, the generator's text encoder "
                f"has {width}; run the stage invert again with this generator"
            )
    first = add_tokens(pipeline, list(style.tokens))
    rows = torch.cat([embeds[token] for token in style.tokens])
    pipeline.text_encoder.get_input_embeddings().weight.data[first : first + len(rows)] = rows
    return style


def add_adapter(pipeline: Any, folder: Path, lora_scale: float) -> Adapter:
    """Fuse the LoRA into the UNet with weight `lora_scale`; does nothing for an adapter that is not enabled.

    Raises TruelikeError if the file's layers are not exactly layers of the UNet.
    """
    adapter = read_adapter(folder)
    if not adapter.enabled or lora_scale == 0:
        return adapter
    weights = load_file(folder / LORA_FILE)
    shapes = {f"unet.{name}": tuple(weight.shape) for name, weight in pipeline.unet.named_parameters()}
    for name, weight in weights.items():
        layer, _, end = name.removesuffix(".weight").rpartition(".lora")
        shape = shapes.get(f"{layer}.weight")
        fits = shape is not None and (
            weight.shape[0] == shape[0] if end in (".up", "_B") else weight.shape[1] == shape[1]
        )
        if not fits:
            raise TruelikeError(
                f"{folder / LORA_FILE}: {name} {tuple(weight.shape)} fits no layer of the generator's UNet; "
                "run the stage adapt again with this generator"
            )
    state, alphas, metadata = pipeline.lora_state_dict(folder, weight_name=LORA_FILE, return_lora_metadata=True)
    pipeline.load_lora_into_unet(state, alphas, pipeline.unet, metadata=metadata, _pipeline=pipeline)
    pipeline.fuse_lora(lora_scale=lora_scale)
    pipeline.unload_lora_weights()
    return adapter


def latents_of(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode uint8 images (N, H, W, 3) into scaled latents (N, C, h, w): the mode of the VAE's posterior, no noise."""
    vae = pipeline.vae
    images = pixels.to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
    return vae.encode(images).latent_dist.mode() * vae.config.scaling_factor


@torch.no_grad()
def encode_images(pipeline: Any, images: ImageSet, batch_size: int = 16) -> torch.Tensor:
    """Encode a whole image set into scaled latents (N, C, h, w)."""
    check_resolution(pipeline, images)
    return torch.cat([latents_of(pipeline, torch.from_numpy(batch)) for batch in images.batches(batch_size)])


def check_resolution(pipeline: Any, images: ImageSet) -> None:
    """Raise TruelikeError unless the VAE can encode images of this size."""
    factor = pipeline.vae_scale_factor
    height, width = int(images.index["height"].iloc[0]), int(images.index["width"].iloc[0])
    if height % factor or width % factor:
        raise TruelikeError(
            f"data.resolution: images are {width} x {height} pixels, the generator needs multiples of {factor}"
        )


def pixels_of(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents (N, C, h, w) into uint8 images (N, H, W, 3) on the CPU."""
    vae = pipeline.vae
    images = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

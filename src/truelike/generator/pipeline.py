"""Opens the generator: a text-to-image pipeline, with a learned style and an adapter where there
are any.
"""

import itertools
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import DiffusionPipeline
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor, nn

from truelike.generator.families import FAMILIES, denoiser_of, family_of, text_encoders
from truelike.imageset.reading import ImageSet
from truelike.runtime.devices import device, torch_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, resolve, variant
from truelike.runtime.scratch import fingerprint, stack_on_disk

STYLE_FILE, EMBEDS_FILE = "style.json", "learned_embeds.safetensors"
ADAPTER_FILE, LORA_FILE = "adapter.json", "pytorch_lora_weights.safetensors"

# Bars for loading would hide those of the work itself.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings(
    "ignore", "Already found a `peft_config`"
)  # a LoRA for each class is what is wanted


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
    classes: dict[str, tuple[str, ...]] | None = (
        None  # each class's own tokens, where every class has a style
    )
    fingerprint: str = ""

    def text(self, class_name: str) -> str:
        """What stands for the style in a prompt of a class: every learned token, or the class's
        own, or nothing.
        """
        return " ".join(self.tokens if self.classes is None else self.classes[class_name])


class Adapter(Record):
    """The content of ``adapter.json``: a fingerprint of the LoRA weights and of the style they were
    trained with.

    `labels` are the classes that have an adapter each, in a folder named after the label, where not
    one serves all.
    """

    enabled: bool
    labels: tuple[int, ...] | None = None
    rank: int = 0
    alpha: int = 0
    style: str = ""
    fingerprint: str = ""


def read_style(folder: Path | None) -> Style:
    """Read ``style.json``; no folder is no style."""
    return (
        Style.model_validate_json((folder / STYLE_FILE).read_text())
        if folder
        else Style(enabled=False)
    )


def read_adapter(folder: Path | None) -> Adapter:
    """Read ``adapter.json``; no folder is no adapter."""
    return (
        Adapter.model_validate_json((folder / ADAPTER_FILE).read_text())
        if folder
        else Adapter(enabled=False)
    )


def identify(path: str) -> str:
    """A generator's name and the fingerprint of its files (of the pointer, for a hub model)."""
    return f"{path}@{fingerprint(None, path)}"


def open_generator(model: Model) -> Any:
    """Open a pipeline of a known family for inference; raises TruelikeError if there is none or it
    is another kind.
    """
    folder = resolve(model.path, "model_index.json")
    found = json.loads((folder / "model_index.json").read_text())["_class_name"]
    if found not in FAMILIES:
        raise TruelikeError(
            f"models.generator: {model.path} holds a {found}, expected one of {', '.join(FAMILIES)}"
        )
    options: dict[str, Any] = {"safety_checker": None} if found == "StableDiffusionPipeline" else {}
    pipeline = DiffusionPipeline.from_pretrained(
        folder,
        dtype=torch_dtype(model.dtype),
        use_safetensors=True,
        **options,
        **variant(model.path),
    )
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    if (
        found == "StableDiffusionXLPipeline"
        and model.dtype == "float16"
        and pipeline.vae.config.force_upcast
    ):
        pipeline.vae.float()  # it overflows, as the stock pipeline knows
    return pipeline.to(device())


def add_tokens(tokenizer: Any, text_encoder: Any, tokens: list[str]) -> int:
    """Add new words to a tokenizer and its text encoder, all other rows unchanged; return the id of
    the first.

    Raises TruelikeError if one is a word already.
    """
    known = [token for token in tokens if token in tokenizer.get_vocab()]
    if known:
        raise TruelikeError(
            f"invert.token: {known[0]!r} is already a token of the generator; choose another word"
        )
    tokenizer.add_tokens(tokens)
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return int(tokenizer.convert_tokens_to_ids(tokens[0]))


def pack_embeds(tokens: Sequence[str], learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """A style's vectors, (tokens, W) per text encoder, as ``load_textual_inversion`` takes them.

    For one text encoder ``{token: vector}``; for several ``{encoder: vectors}``, to be given one by
    one with a token.
    """
    if len(learned) > 1:
        return {name: rows.contiguous().cpu() for name, rows in learned.items()}
    (rows,) = learned.values()
    return {token: row[None].contiguous().cpu() for token, row in zip(tokens, rows, strict=True)}


def add_style(pipeline: Any, folder: Path) -> Style:
    """Add the learned tokens to tokenizers and text encoders; does nothing for a style that is not
    enabled.

    Raises TruelikeError if an embedding is missing, does not fit, or its token is already a word of
    the tokenizer.
    """
    style = read_style(folder)
    if not style.enabled:
        return style
    embeds, encoders = load_file(folder / EMBEDS_FILE), text_encoders(pipeline)
    expected = sorted(encoders if len(encoders) > 1 else style.tokens)
    if sorted(embeds) != expected:
        raise TruelikeError(
            f"{folder / EMBEDS_FILE}: holds {sorted(embeds)}, expected {expected}; "
            "run the stage invert again with this generator"
        )
    for name, (tokenizer, text_encoder) in encoders.items():
        rows = (
            embeds[name]
            if len(encoders) > 1
            else torch.cat([embeds[token] for token in style.tokens])
        )
        width = text_encoder.get_input_embeddings().weight.shape[1]
        if rows.shape != (len(style.tokens), width):
            raise TruelikeError(
                f"{folder / EMBEDS_FILE}: {style.token!r} has width {rows.shape[-1]}, the "
                "generator's text encoder "
                f"has {width}; run the stage invert again with this generator"
            )
        first = add_tokens(tokenizer, text_encoder, list(style.tokens))
        text_encoder.get_input_embeddings().weight.data[first : first + len(rows)] = rows
    return style


def add_adapter(pipeline: Any, folder: Path, lora_scale: float) -> Adapter:
    """Fuse the LoRA into the denoiser with weight `lora_scale`; does nothing for an adapter that is
    not enabled.

    Adapters of single classes are only loaded: `use_class` makes one of them take effect. Raises
    TruelikeError if a file's layers are not exactly layers of the denoiser.
    """
    adapter = read_adapter(folder)
    if not adapter.enabled or lora_scale == 0:
        return adapter
    model, prefix = denoiser_of(pipeline), family_of(pipeline).denoiser
    if adapter.labels is not None:
        for label in adapter.labels:
            check_adapter(pipeline, folder / str(label))
        for label in adapter.labels:
            model.load_lora_adapter(
                folder / str(label),
                weight_name=LORA_FILE,
                prefix=prefix,
                adapter_name=class_adapter(label),
            )
        return adapter
    check_adapter(pipeline, folder)
    model.load_lora_adapter(folder, weight_name=LORA_FILE, prefix=prefix)
    model.fuse_lora(lora_scale=lora_scale)
    model.unload_lora()
    return adapter


def class_adapter(label: int) -> str:
    """The name that peft knows the adapter of a class by."""
    return f"class-{label}"


def use_class(pipeline: Any, label: int, lora_scale: float) -> None:
    """Give the denoiser the LoRA of one class, with weight `lora_scale`."""
    denoiser_of(pipeline).set_adapters(class_adapter(label), lora_scale)


def check_adapter(pipeline: Any, folder: Path) -> None:
    """Raise TruelikeError if the layers of a LoRA's file are not exactly layers of the denoiser."""
    weights = load_file(folder / LORA_FILE)
    model, prefix = denoiser_of(pipeline), family_of(pipeline).denoiser
    shapes = {f"{prefix}.{name}": tuple(weight.shape) for name, weight in model.named_parameters()}
    for name, weight in weights.items():
        layer, _, end = name.removesuffix(".weight").rpartition(".lora")
        shape = shapes.get(f"{layer}.weight")
        fits = shape is not None and (
            weight.shape[0] == shape[0] if end in (".up", "_B") else weight.shape[1] == shape[1]
        )
        if not fits:
            raise TruelikeError(
                f"{folder / LORA_FILE}: {name} {tuple(weight.shape)} fits no layer of the "
                f"generator's {prefix}; "
                "run the stage adapt again with this generator"
            )


def latents_of(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode uint8 images (N, H, W, 3) into scaled latents (N, C, h, w): the mode of the VAE's
    posterior, no noise.
    """
    vae = pipeline.vae
    images = pixels.to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
    return (
        vae.encode(images).latent_dist.mode() - (vae.config.shift_factor or 0.0)
    ) * vae.config.scaling_factor


@torch.no_grad()
def encode_images(pipeline: Any, images: ImageSet, batch_size: int = 16) -> torch.Tensor:
    """Encode a whole image set into scaled latents (N, C, h, w), on the CPU and mapped from the
    scratch folder.
    """
    check_resolution(pipeline, images)
    batches = (
        latents_of(pipeline, torch.from_numpy(batch)) for batch in images.batches(batch_size)
    )
    # Channels last, as the VAE gives them: the order in memory decides how the denoiser rounds its
    # sums.
    rows = itertools.chain.from_iterable(
        batch.permute(0, 2, 3, 1).cpu().numpy() for batch in batches
    )
    return torch.from_numpy(stack_on_disk(rows)).permute(0, 3, 1, 2)


def check_resolution(pipeline: Any, images: ImageSet) -> None:
    """Raise TruelikeError unless the VAE can encode images of this size."""
    factor = pipeline.vae_scale_factor
    height, width = int(images.index["height"].iloc[0]), int(images.index["width"].iloc[0])
    if height % factor or width % factor:
        raise TruelikeError(
            f"data.resolution: images are {width} x {height} pixels, the generator needs multiples "
            f"of {factor}"
        )


def pixels_of(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents (N, C, h, w) into uint8 images (N, H, W, 3) on the CPU."""
    vae = pipeline.vae
    unscaled = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    images = vae.decode(unscaled, return_dict=False)[0]
    return (
        ((images.float() / 2 + 0.5).clamp(0, 1) * 255)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .cpu()
    )

"""The text-to-image generator: a pipeline of a known family, with a learned style and an adapter
where there are any.
"""

import itertools
import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from truelike.generator.adapter import LORA_FILE, Adapter, check_lora, class_adapter, read_adapter
from truelike.generator.families import FAMILIES, denoiser_of, family_of
from truelike.generator.family import Conditioning
from truelike.generator.latents import latent_channels, vae_factor
from truelike.generator.prompts import PromptReader
from truelike.generator.style import Style, add_tokens, read_embeds, read_style
from truelike.imageset.reading import ImageSet
from truelike.runtime.devices import check_dtype, device, torch_dtype
from truelike.runtime.errors import TruelikeError
from truelike.runtime.hub import Model, names_nothing, resolve, variant
from truelike.runtime.scratch import fingerprint, stack_on_disk

ENCODED, ENCODED_PIXELS = 16, 2**20  # images, and pixels, that the VAE encodes at once
TILE = 1024  # pixels, the side of the largest image that is decoded whole

# Bars for loading would hide those of the work itself.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
# A LoRA for each class is what is wanted.
warnings.filterwarnings("ignore", "Already found a `peft_config`")


def identify(model: Model) -> str:
    """A generator's name and the fingerprint of its files (of the pointer, for a hub model), and
    those of its accelerator.
    """
    paths = [model.path]
    if model.accelerator is not None and not names_nothing(model.accelerator):
        paths.append(model.accelerator)
    return " + ".join(f"{path}@{fingerprint(None, path)}" for path in paths)


class Generator:
    """A diffusers pipeline of a known family, all of its weights frozen."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.family = family_of(pipeline)
        self.device = device()
        self.on_gpu = self.device.type != "cpu"

    @classmethod
    def open(cls, model: Model, parts: Collection[str] | None = None) -> "Generator":
        """Open a pipeline, with the named parts of it on the device and the others in the CPU's
        memory; all of them, unless given, on the device.

        Raises TruelikeError if there is none or if it is of an unknown family, or if the device
        cannot compute in its type.
        """
        check_dtype(model.dtype)
        folder = resolve(model.path, "model_index.json")
        found = json.loads((folder / "model_index.json").read_text())["_class_name"]
        if found not in FAMILIES:
            raise TruelikeError(
                f"models.generator: {model.path} holds a {found}, expected one of "
                f"{', '.join(FAMILIES)}"
            )
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            dtype=torch_dtype(model.dtype),
            use_safetensors=True,
            **FAMILIES[found].options,
            **variant(model.path),
        )
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        upcast = FAMILIES[found].upcasts_vae and pipeline.vae.config.force_upcast
        if upcast and model.dtype == "float16":
            pipeline.vae.float()  # it overflows, as the stock pipeline knows
        opened = cls(pipeline)
        opened.tune()
        opened.place(opened.modules if parts is None else parts)
        if model.compile:
            opened.denoiser.compile()  # when it first runs, with the adapter that it then has
        return opened

    @property
    def name(self) -> str:
        """The class of the pipeline, such as ``StableDiffusionPipeline``."""
        return type(self.pipeline).__name__

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts of the pipeline that have weights."""
        parts = self.pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, nn.Module)}

    @property
    def encoders(self) -> list[str]:
        """The names of the text encoders, also of those that can have no style."""
        return [name for name in self.modules if name.startswith("text_encoder")]

    def place(self, parts: Collection[str]) -> None:
        """Move these parts of the pipeline to the device and all others to the CPU's memory."""
        for name, module in self.modules.items():
            if name not in parts:
                module.to("cpu")
        if self.on_gpu:
            getattr(torch, self.device.type).empty_cache()
        for name in parts:
            self.modules[name].to(self.device)

    def tune(self) -> None:
        """Set what makes the parts small or fast on a GPU, and changes rounding only.

        Images are decoded one by one; those larger than the VAE was trained on, or than 1,024
        pixels, in tiles whose seams are blended.
        """
        if not self.on_gpu:
            return
        vae = self.pipeline.vae
        vae.enable_slicing()
        if hasattr(vae, "tile_sample_min_height"):  # which begins with smaller tiles
            vae.enable_tiling(TILE, TILE, 3 * TILE // 4, 3 * TILE // 4)
        else:
            vae.enable_tiling()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.allow_tf32 = True
            for part in (self.pipeline.vae, self.denoiser):
                if all(weight.ndim < 5 for weight in part.parameters()):  # no VAE of videos
                    part.to(memory_format=torch.channels_last)

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return denoiser_of(self.pipeline)

    @property
    def scheduler(self) -> Any:
        """The checkpoint's scheduler, which it was trained with."""
        return self.pipeline.scheduler

    @property
    def reader(self) -> PromptReader:
        """What cuts a prompt."""
        return PromptReader.of(self.family, getattr(self.pipeline, self.family.tokenizer))

    @property
    def is_told_guidance(self) -> bool:
        """Whether the denoiser is distilled to be told the guidance scale instead of guided."""
        config = self.denoiser.config
        return bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))

    @property
    def text_encoders(self) -> dict[str, tuple[Any, Any]]:
        """The tokenizer and text encoder that each part of a style belongs to; raises TruelikeError
        if the family can have no style.
        """
        if not self.family.encoders:
            raise TruelikeError(
                f"invert.enabled: a {self.name} cannot learn a style, there is no textual "
                "inversion for it; set invert.enabled to false"
            )
        return {
            name: (getattr(self.pipeline, tokenizer), getattr(self.pipeline, encoder))
            for name, (tokenizer, encoder) in self.family.encoders.items()
        }

    @contextmanager
    def checkpointed(self, choice: Literal["auto", "on", "off"]) -> Iterator[None]:
        """While open, the denoiser keeps few activations and computes the others again for the
        gradients; ``auto`` is on where there is a GPU.
        """
        if choice == "on" or (choice == "auto" and self.on_gpu):
            self.denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.denoiser.disable_gradient_checkpointing()

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of N prompts, each tensor (N, ...), with gradients if they are on."""
        return self.family.encode(self.pipeline, prompts)

    def encode_negative(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of N negative or empty prompts, which some families write out less."""
        encode = self.family.encode_negative or self.family.encode
        return encode(self.pipeline, prompts)

    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """What the denoiser predicts, of the shape of `latents` (N, C, h, w)."""
        timesteps = timesteps.to(latents.device)  # schedulers keep theirs on the CPU
        return self.family.denoise(self.pipeline, latents, timesteps, conditioning)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, h, w) of the latents of an image; raises TruelikeError unless the VAE can
        encode images of this size.
        """
        vae, fold = self.pipeline.vae.config, self.family.fold
        factor = fold * vae_factor(vae)
        patch = self.family.patch or self.denoiser.config.get("patch_size", 1)
        check_size(height, width, factor, patch)
        return latent_channels(vae) * fold**2, height // factor, width // factor

    def to_latents(self, pixels: Tensor) -> Tensor:
        """Encode uint8 images (N, H, W, 3) into scaled latents (N, C, h, w): the mode of the VAE's
        posterior, no noise.
        """
        vae = self.pipeline.vae
        images = pixels.to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
        return self.family.to_latents(vae, images)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (N, C, h, w) into images (N, 3, H, W) of about -1 to 1, float32,
        with gradients if they are on.
        """
        vae = self.pipeline.vae
        return self.family.to_images(vae, latents.to(vae.dtype)).float()

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (N, C, h, w) into uint8 images (N, H, W, 3) on the CPU."""
        images = self.decode(latents)
        levels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).cpu()

    @torch.no_grad()
    def encode_images(self, images: ImageSet) -> Tensor:
        """Encode a whole image set into scaled latents (N, C, h, w), float32, on the CPU and mapped
        from the scratch folder.
        """
        height, width = image_size(images)
        self.latent_shape(height, width)
        batch_size = max(1, min(ENCODED, ENCODED_PIXELS // (height * width)))
        batches = (self.to_latents(torch.from_numpy(batch)) for batch in images.batches(batch_size))
        # Channels last, as the VAE gives them: the order in memory decides how the denoiser rounds
        # its sums.
        rows = itertools.chain.from_iterable(
            batch.permute(0, 2, 3, 1).float().cpu().numpy() for batch in batches
        )
        return torch.from_numpy(stack_on_disk(rows)).permute(0, 3, 1, 2)

    def add_style(self, folder: Path) -> Style:
        """Add a learned style's tokens to tokenizers and text encoders, unless it is not enabled.

        Raises TruelikeError if an embedding is missing, does not fit, or its token is already a
        word of the tokenizer.
        """
        style = read_style(folder)
        if not style.enabled:
            return style
        embeds = read_embeds(folder, style, self.text_encoders)
        for name, (tokenizer, text_encoder) in self.text_encoders.items():
            first = add_tokens(tokenizer, text_encoder, style.tokens)
            rows = text_encoder.get_input_embeddings().weight.data
            rows[first : first + len(style.tokens)] = embeds[name]
        return style

    def add_adapter(self, folder: Path, lora_scale: float) -> Adapter:
        """Fuse a learned LoRA into the denoiser with weight `lora_scale`, unless it is not enabled.

        Adapters of single classes are only loaded: `use_class` makes one of them take effect.
        Raises TruelikeError if a file's layers are not exactly layers of the denoiser.
        """
        adapter = read_adapter(folder)
        if not adapter.enabled or lora_scale == 0:
            return adapter
        labels = adapter.labels
        folders = [folder] if labels is None else [folder / str(label) for label in labels]
        for own in folders:  # before the denoiser's layers change their names
            check_lora(own, self.pipeline)
        names = [None] if labels is None else [class_adapter(label) for label in labels]
        for own, name in zip(folders, names, strict=True):
            self.denoiser.load_lora_adapter(
                own, weight_name=LORA_FILE, prefix=self.family.denoiser, adapter_name=name
            )
        if labels is None:
            self.denoiser.fuse_lora(lora_scale=lora_scale)
            self.denoiser.unload_lora()
        return adapter

    def use_class(self, label: int, lora_scale: float) -> None:
        """Give the denoiser the LoRA of one class, with weight `lora_scale`."""
        self.denoiser.set_adapters(class_adapter(label), lora_scale)


def check_size(height: int, width: int, factor: int, patch: int) -> None:
    """Raise TruelikeError unless a VAE that divides sides by `factor`, and a denoiser that takes
    latents in squares of `patch`, can take images of this size.
    """
    multiple = factor * patch
    if height % multiple or width % multiple:
        raise TruelikeError(
            f"data.resolution: images are {width} x {height} pixels, the generator needs multiples "
            f"of {multiple}"
        )


def image_size(images: ImageSet) -> tuple[int, int]:
    """The height and width of the images of a set."""
    return int(images.index["height"].iloc[0]), int(images.index["width"].iloc[0])

"""Stable Diffusion 1.x, 2.x, XL and 3: how each encodes prompts and calls its denoiser."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truelike.generator.family import Conditioning, told_scale

T5_LENGTH = 256  # tokens of Stable Diffusion 3's third text encoder, as the stock pipeline has it


def token_ids(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str], length: int | None = None
) -> Tensor:
    """Token ids (N, L) of prompts where the text encoder is, padded and cut to `length`, or else to
    the tokenizer's limit.
    """
    length = length or tokenizer.model_max_length
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(text_encoder.device)


def clip_states(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The last but one states (N, L, W) and the projected pooled embedding (N, D) of a CLIP text
    encoder.
    """
    ids = token_ids(tokenizer, text_encoder, prompts)
    output = text_encoder(ids, output_hidden_states=True)
    return output.hidden_states[-2], output[0]


def encode_sd(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Stable Diffusion 1.x and 2.x: the last states of one text encoder."""
    ids = token_ids(pipeline.tokenizer, pipeline.text_encoder, prompts)
    return {"encoder_hidden_states": pipeline.text_encoder(ids)[0]}


def scale_embedding(pipeline: Any, latents: Tensor, conditioning: Conditioning) -> Tensor | None:
    """The embedding (N, D) of the guidance scale that a UNet distilled as a latent consistency
    model is told; None for any other.
    """
    width = pipeline.unet.config.time_cond_proj_dim
    if width is None:
        return None
    above_none = told_scale(conditioning, latents).float().cpu() - 1
    return pipeline.get_guidance_scale_embedding(above_none, width).to(latents)


def denoise_sd(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Stable Diffusion 1.x and 2.x."""
    return pipeline.unet(
        latents,
        timesteps,
        encoder_hidden_states=conditioning["encoder_hidden_states"],
        timestep_cond=scale_embedding(pipeline, latents, conditioning),
    ).sample


def encode_sdxl(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Stable Diffusion XL: the states of two text encoders side by side, the second's pooled
    embedding.
    """
    first, _ = clip_states(pipeline.tokenizer, pipeline.text_encoder, prompts)
    second, pooled = clip_states(pipeline.tokenizer_2, pipeline.text_encoder_2, prompts)
    return {"encoder_hidden_states": torch.cat([first, second], dim=-1), "text_embeds": pooled}


def denoise_sdxl(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Stable Diffusion XL: its time ids say that the image is neither scaled nor cropped."""
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[-2:])
    time_ids = (
        torch.tensor([height, width, 0, 0, height, width]).to(latents).expand(len(latents), -1)
    )
    added = {"text_embeds": conditioning["text_embeds"], "time_ids": time_ids}
    states = conditioning["encoder_hidden_states"]
    return pipeline.unet(
        latents,
        timesteps,
        encoder_hidden_states=states,
        timestep_cond=scale_embedding(pipeline, latents, conditioning),
        added_cond_kwargs=added,
    ).sample


def encode_sd3(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Stable Diffusion 3: the states of two CLIPs side by side, those of T5 (zeros without it)
    after them.
    """
    first, pooled = clip_states(pipeline.tokenizer, pipeline.text_encoder, prompts)
    second, pooled_2 = clip_states(pipeline.tokenizer_2, pipeline.text_encoder_2, prompts)
    clip = torch.cat([first, second], dim=-1)
    if pipeline.text_encoder_3 is None:
        t5 = clip.new_zeros(len(clip), T5_LENGTH, pipeline.transformer.config.joint_attention_dim)
    else:
        ids = token_ids(pipeline.tokenizer_3, pipeline.text_encoder_3, prompts, T5_LENGTH)
        t5 = pipeline.text_encoder_3(ids)[0]
    clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    states = torch.cat([clip, t5.to(clip)], dim=1)
    return {
        "encoder_hidden_states": states,
        "pooled_projections": torch.cat([pooled, pooled_2], dim=-1),
    }


def denoise_sd3(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Stable Diffusion 3: the velocity eps - x_0."""
    return pipeline.transformer(
        latents, timestep=timesteps.expand(len(latents)), **conditioning
    ).sample

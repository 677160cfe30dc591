"""Lumina2, FLUX.1, FLUX.2 klein, Sana, Z-Image and Qwen-Image: how each encodes prompts, calls its
transformer, and shifts its schedule.

All predict the velocity eps - x_0 of flow matching. What surrounds a prompt is diffusers' own, so
that prompts are encoded by the methods of the stock pipelines.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from truelike.generator.family import Conditioning, guide_linearly, told_scale
from truelike.generator.latents import pack, unpack

LENGTH = 512  # tokens of a prompt that Z-Image and Qwen-Image read, as the stock pipelines do
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"


def masked(states: Tensor, mask: Tensor) -> Conditioning:
    """States (N, L, W) and their mask (N, L), in the states' type."""
    return {STATES: states, MASK: mask.to(states)}


def padded(found: Sequence[Tensor]) -> Conditioning:
    """States (L, W) of prompts of any length, and their mask."""
    states = found[0].new_zeros(len(found), LENGTH, found[0].shape[-1])
    mask = states.new_zeros(states.shape[:2])
    for row, own in enumerate(found):
        states[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return masked(states, mask)


@cache
def lumina2_system_prompt() -> str:
    """What the stock pipeline writes before every prompt that is not negative."""
    from diffusers import Lumina2Pipeline

    return str(Lumina2Pipeline(*[None] * 5).system_prompt)


def write_lumina2(tokenizer: Any, prompt: str) -> str:
    """A prompt after Lumina2's system prompt."""
    return f"{lumina2_system_prompt()} <Prompt Start> {prompt}"


def encode_lumina2(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Lumina2: the last but one states of Gemma 2, and their mask."""
    texts = [write_lumina2(pipeline.tokenizer, prompt) for prompt in prompts]
    return encode_lumina2_negative(pipeline, texts)


def encode_lumina2_negative(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Lumina2: negative prompts have no system prompt."""
    device = pipeline.text_encoder.device
    return masked(*pipeline._get_gemma_prompt_embeds(list(prompts), device))


def denoise_lumina2(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Lumina2: time runs from noise, 0, to image, 1, and the velocity is x_0 - eps."""
    return -pipeline.transformer(
        hidden_states=latents,
        timestep=(1 - timesteps / 1000).expand(len(latents)),
        encoder_hidden_states=conditioning[STATES],
        encoder_attention_mask=conditioning[MASK].long(),
    ).sample


def guide_lumina2(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Guidance whose rows keep the norm of what is said with the prompt."""
    guided = guide_linearly(conditional, unconditional, scale)
    norms = [torch.norm(values, dim=-1, keepdim=True) for values in (conditional, guided)]
    return guided * (norms[0] / norms[1])


def mu_of_channels(config: Mapping[str, Any], shape: Sequence[int], steps: int) -> float:
    """Lumina2: the stock pipeline takes the number of channels for that of tokens."""
    return _linear_mu(config, shape[0])


def mu_of_tokens(config: Mapping[str, Any], shape: Sequence[int], steps: int) -> float:
    """A shift that grows linearly with the number of tokens, each of 2 x 2 latents."""
    return _linear_mu(config, (shape[1] // 2) * (shape[2] // 2))


def _linear_mu(config: Mapping[str, Any], tokens: int) -> float:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    return calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )


def encode_flux(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """FLUX.1: the states of T5, and the pooled embedding of CLIP."""
    device = pipeline.text_encoder.device
    states, pooled, _ = pipeline.encode_prompt(list(prompts), device=device)
    return {STATES: states, "pooled_projections": pooled}


def denoise_flux(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """FLUX.1; [dev] is told the guidance scale."""
    height, width = latents.shape[-2:]
    places = (height // 2, width // 2, latents.device, latents.dtype)
    states, is_told = conditioning[STATES], pipeline.transformer.config.guidance_embeds
    tokens = pipeline.transformer(
        hidden_states=pack(latents),
        timestep=timesteps.expand(len(latents)).to(latents.dtype) / 1000,
        guidance=told_scale(conditioning, latents) if is_told else None,
        pooled_projections=conditioning["pooled_projections"],
        encoder_hidden_states=states,
        txt_ids=latents.new_zeros(states.shape[1], 3),
        img_ids=pipeline._prepare_latent_image_ids(len(latents), *places),
    ).sample
    return unpack(tokens, height, width)


def write_chat(tokenizer: Any, prompt: str, **options: Any) -> str:
    """A prompt as a user's message to a language model."""
    messages = [{"role": "user", "content": prompt}]
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
    )


def write_flux2(tokenizer: Any, prompt: str) -> str:
    """A message that asks for no thinking."""
    return write_chat(tokenizer, prompt, enable_thinking=False)


def encode_flux2(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """FLUX.2 klein: three layers' states of Qwen3, side by side."""
    device = pipeline.text_encoder.device
    return {STATES: pipeline.encode_prompt(list(prompts), device=device)[0]}


def denoise_flux2(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """FLUX.2 klein: a token for each of its latents, which are folded already."""
    states = conditioning[STATES]
    tokens = pipeline.transformer(
        hidden_states=latents.flatten(2).mT,
        timestep=timesteps.expand(len(latents)).to(latents.dtype) / 1000,
        guidance=None,
        encoder_hidden_states=states,
        txt_ids=pipeline._prepare_text_ids(states).to(latents.device),
        img_ids=pipeline._prepare_latent_ids(latents).to(latents.device),
    ).sample
    return tokens.mT.unflatten(2, latents.shape[-2:])


def mu_of_steps(config: Mapping[str, Any], shape: Sequence[int], steps: int) -> float:
    """FLUX.2: a shift fitted to the number of tokens and of steps."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    return compute_empirical_mu(shape[1] * shape[2], steps)


@cache
def sana_instruction() -> tuple[str, ...]:
    """What the stock pipeline tells Gemma 2 to make of a prompt."""
    from diffusers import SanaPipeline

    parameters = inspect.signature(SanaPipeline.__call__).parameters
    return tuple(parameters["complex_human_instruction"].default)


def write_sana(tokenizer: Any, prompt: str) -> str:
    """Sana reads small letters."""
    return prompt.lower().strip()


def encode_sana(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Sana: Gemma 2's states of a prompt after an instruction, and their mask."""
    return _encode_sana(pipeline, prompts, list(sana_instruction()))


def encode_sana_negative(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Sana: negative prompts have no instruction."""
    return _encode_sana(pipeline, prompts, None)


def _encode_sana(
    pipeline: Any, prompts: Sequence[str], instruction: list[str] | None
) -> Conditioning:
    states, mask, _, _ = pipeline.encode_prompt(
        list(prompts),
        do_classifier_free_guidance=False,
        device=pipeline.text_encoder.device,
        complex_human_instruction=instruction,
    )
    return masked(states, mask)


def denoise_sana(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Sana."""
    model = pipeline.transformer
    return model(
        latents,
        encoder_hidden_states=conditioning[STATES],
        encoder_attention_mask=conditioning[MASK],
        timestep=timesteps.expand(len(latents)) * model.config.timestep_scale,
    ).sample


def write_z_image(tokenizer: Any, prompt: str) -> str:
    """A message that asks for thinking."""
    return write_chat(tokenizer, prompt, enable_thinking=True)


def encode_z_image(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Z-Image: the last but one states of Qwen3."""
    device = pipeline.text_encoder.device
    found, _ = pipeline.encode_prompt(
        list(prompts), device=device, do_classifier_free_guidance=False
    )
    return padded(found)


def denoise_z_image(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Z-Image: time runs from noise, 0, to image, 1, and the velocity is x_0 - eps."""
    rows = zip(conditioning[STATES], conditioning[MASK].bool(), strict=True)
    made = pipeline.transformer(
        list(latents[:, :, None]),
        (1000 - timesteps).expand(len(latents)) / 1000,
        [states[mask] for states, mask in rows],
        return_dict=False,
    )[0]
    return -torch.stack(made)[:, :, 0]


@cache
def qwen_template() -> str:
    """What the stock pipeline writes around every prompt."""
    from diffusers import QwenImagePipeline

    return str(QwenImagePipeline(*[None] * 5).prompt_template_encode)


def write_qwen(tokenizer: Any, prompt: str) -> str:
    """A prompt in Qwen-Image's template."""
    return qwen_template().format(prompt)


def encode_qwen(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """Qwen-Image: the last states of Qwen2.5-VL, without those of what stands before a prompt."""
    device = pipeline.text_encoder.device
    return padded(
        [
            pipeline.encode_prompt([prompt], device=device, max_sequence_length=LENGTH)[0][0]
            for prompt in prompts
        ]
    )


def denoise_qwen(
    pipeline: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Qwen-Image."""
    height, width = latents.shape[-2:]
    mask = conditioning[MASK].bool()
    longest = int(mask.sum(1).max())
    tokens = pipeline.transformer(
        hidden_states=pack(latents),
        timestep=timesteps.expand(len(latents)).to(latents.dtype) / 1000,
        encoder_hidden_states=conditioning[STATES][:, :longest],
        encoder_hidden_states_mask=mask[:, :longest],
        img_shapes=[[(1, height // 2, width // 2)]] * len(latents),
    ).sample
    return unpack(tokens, height, width)


def guide_qwen(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Guidance whose tokens keep the norm of what is said with the prompt."""
    guided = pack(guide_linearly(conditional, unconditional, scale))
    norms = [torch.norm(tokens, dim=-1, keepdim=True) for tokens in (pack(conditional), guided)]
    return unpack(guided * (norms[0] / norms[1]), *conditional.shape[-2:])

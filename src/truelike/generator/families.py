"""The known families of text-to-image models, by the class of their pipelines."""

from typing import Any

from truelike.generator.family import Family
from truelike.generator.flow_transformers import (
    LENGTH,
    denoise_flux,
    denoise_flux2,
    denoise_lumina2,
    denoise_qwen,
    denoise_sana,
    denoise_z_image,
    encode_flux,
    encode_flux2,
    encode_lumina2,
    encode_lumina2_negative,
    encode_qwen,
    encode_sana,
    encode_sana_negative,
    encode_z_image,
    guide_lumina2,
    guide_qwen,
    mu_of_channels,
    mu_of_steps,
    mu_of_tokens,
    write_flux2,
    write_lumina2,
    write_qwen,
    write_sana,
    write_z_image,
)
from truelike.generator.latents import (
    decode_normalised,
    decode_standardised,
    encode_normalised,
    encode_standardised,
)
from truelike.generator.stable_diffusion import (
    denoise_sd,
    denoise_sd3,
    denoise_sdxl,
    encode_sd,
    encode_sd3,
    encode_sdxl,
)

ATTENTION = {"q": ("to_q",), "k": ("to_k",), "v": ("to_v",), "out": ("to_out.0",)}
JOINT_ATTENTION = {
    "q": ("to_q", "add_q_proj"),
    "k": ("to_k", "add_k_proj"),
    "v": ("to_v", "add_v_proj"),
    "out": ("to_out.0", "to_add_out"),
}
FUSED = "to_qkv_mlp_proj"  # q, k and v in one, with the first layer of an MLP
FUSED_ATTENTION = {
    "q": ("to_q", "add_q_proj", FUSED),
    "k": ("to_k", "add_k_proj", FUSED),
    "v": ("to_v", "add_v_proj", FUSED),
    "out": ("to_out.0", "to_add_out", "single_transformer_blocks.*.attn.to_out"),
}

STABLE_DIFFUSION = Family(
    denoiser="unet",
    attention=ATTENTION,
    encode=encode_sd,
    denoise=denoise_sd,
    encoders={"clip_l": ("tokenizer", "text_encoder")},
    visual_guidance=True,
    options={"safety_checker": None},
)
FAMILIES = {
    "StableDiffusionPipeline": STABLE_DIFFUSION,
    "LatentConsistencyModelPipeline": STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": Family(
        denoiser="unet",
        attention=ATTENTION,
        encode=encode_sdxl,
        denoise=denoise_sdxl,
        encoders={
            "clip_l": ("tokenizer", "text_encoder"),
            "clip_g": ("tokenizer_2", "text_encoder_2"),
        },
        upcasts_vae=True,
    ),
    "StableDiffusion3Pipeline": Family(
        denoiser="transformer",
        attention=JOINT_ATTENTION,
        encode=encode_sd3,
        denoise=denoise_sd3,
        mu=mu_of_tokens,
    ),
    "Lumina2Pipeline": Family(
        denoiser="transformer",
        attention=ATTENTION,
        encode=encode_lumina2,
        encode_negative=encode_lumina2_negative,
        denoise=denoise_lumina2,
        guide=guide_lumina2,
        limit=256,
        written=write_lumina2,
        even_sigmas=True,
        mu=mu_of_channels,
    ),
    "FluxPipeline": Family(
        denoiser="transformer",
        attention=JOINT_ATTENTION,
        encode=encode_flux,
        denoise=denoise_flux,
        tokenizer="tokenizer_2",
        limit=512,
        patch=2,
        even_sigmas=True,
        mu=mu_of_tokens,
    ),
    "Flux2KleinPipeline": Family(
        denoiser="transformer",
        attention=FUSED_ATTENTION,
        encode=encode_flux2,
        denoise=denoise_flux2,
        limit=512,
        written=write_flux2,
        to_latents=encode_normalised,
        to_images=decode_normalised,
        fold=2,
        even_sigmas=True,
        mu=mu_of_steps,
    ),
    "SanaPipeline": Family(
        denoiser="transformer",
        attention=ATTENTION,
        encode=encode_sana,
        encode_negative=encode_sana_negative,
        denoise=denoise_sana,
        limit=299,  # of the 300 that a prompt's states are cut to, one is the instruction's
        written=write_sana,
    ),
    "ZImagePipeline": Family(
        denoiser="transformer",
        attention=ATTENTION,
        encode=encode_z_image,
        denoise=denoise_z_image,
        limit=LENGTH,
        written=write_z_image,
        patch=2,
        even_sigmas=True,
        mu=mu_of_tokens,
    ),
    "QwenImagePipeline": Family(
        denoiser="transformer",
        attention=JOINT_ATTENTION,
        encode=encode_qwen,
        denoise=denoise_qwen,
        guide=guide_qwen,
        limit=LENGTH + 34,  # with the 34 before a prompt, whose states are left out
        written=write_qwen,
        to_latents=encode_standardised,
        to_images=decode_standardised,
        even_sigmas=True,
        mu=mu_of_tokens,
    ),
}


def family_of(pipeline: Any) -> Family:
    """The family of an opened pipeline."""
    return FAMILIES[type(pipeline).__name__]


def denoiser_of(pipeline: Any) -> Any:
    """The UNet or transformer of a pipeline."""
    return getattr(pipeline, family_of(pipeline).denoiser)

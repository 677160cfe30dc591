"""Builders of tiny random pipelines of flow transformers, as `tiny_models` has the Stable
Diffusions: Lumina2, FLUX.1, FLUX.2 klein, Sana, Z-Image and
Qwen-Image.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from tests.support.tiny_models import WIDTH, make_t5_tokenizer, make_tokenizer, text_config

CHANNELS = 4
LAYER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter, and a chat template."""
    letters = ["<pad>", "<unk>", " ", *(chr(code) for code in range(33, 127))]
    model = Tokenizer(WordLevel({letter: n for n, letter in enumerate(letters)}, "<unk>"))
    model.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
        "{% if enable_thinking %}?{% else %}!{% endif %}"
    )
    return tokenizer


def make_vae(levels: int) -> AutoencoderKL:
    """A VAE whose latents have 2 ** (levels - 1) pixels a side."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        shift_factor=0.1,
        scaling_factor=1.5,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def make_scheduler(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    """A schedule whose shift depends on what is sampled."""
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **options)


def make_lumina2() -> Lumina2Pipeline:
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    gemma = Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=2, **LAYER)
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=CHANNELS,
            hidden_size=32,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(8, 4, 4),
            axes_lens=(300, 16, 16),
            cap_feat_dim=16,
        ),
        scheduler=make_scheduler(),
        vae=make_vae(4),  # the stock pipeline has its factor, 8, in its code
        text_encoder=Gemma2Model(gemma).eval(),
        tokenizer=tokenizer,
    )


def make_flux(told: bool = False) -> FluxPipeline:
    """FLUX.1 [schnell], or [dev], which is told the guidance scale."""
    torch.manual_seed(0)
    clip, t5_tokenizer = make_tokenizer(), make_t5_tokenizer()
    t5 = T5Config(
        vocab_size=len(t5_tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return FluxPipeline(
        scheduler=make_scheduler() if told else FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(2),
        text_encoder=CLIPTextModel(text_config(clip)),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=t5_tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=WIDTH,
            guidance_embeds=told,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def make_flux_dev() -> FluxPipeline:
    return make_flux(told=True)


def make_flux2() -> Flux2KleinPipeline:
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    qwen = Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=28, **LAYER)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=CHANNELS,
        norm_num_groups=4,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    return Flux2KleinPipeline(
        scheduler=make_scheduler(),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(qwen).eval(),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )


def make_sana() -> SanaPipeline:
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    gemma = Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=1, **LAYER)
    levels = (8, 8, 16)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("block_out_channels", levels),
            ("layers_per_block", (1, 1, 1)),
            ("qkv_multiscales", ((), (), ())),
        )
    }
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(gemma).eval(),
        vae=AutoencoderDC(
            latent_channels=CHANNELS, attention_head_dim=2, scaling_factor=0.4, **sides
        ),
        transformer=SanaTransformer2DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
        ),
        scheduler=DPMSolverMultistepScheduler(
            use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"
        ),
    )


def make_z_image() -> ZImagePipeline:
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    qwen = Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=2, **LAYER)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=make_vae(2),
        text_encoder=Qwen3Model(qwen).eval(),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            in_channels=CHANNELS,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[1024, 32, 32],
        ),
    )


def make_qwen() -> QwenImagePipeline:
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 2} | LAYER
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [1, 1, 2],
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {"out_hidden_size": 16, "fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.5, 1.0, 2.0]}
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        **statistics,
    )
    vae.decoder.conv_out.weight.data *= 10  # else all pictures are grey
    transformer = QwenImageTransformer2DModel(
        in_channels=4 * CHANNELS,
        out_channels=CHANNELS,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    transformer.transformer_blocks[0].attn.to_out[0].weight.data *= 20  # else prompts do little
    return QwenImagePipeline(
        scheduler=make_scheduler(shift_terminal=0.02),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


FLOWS = {
    "lumina2": make_lumina2,
    "flux": make_flux,
    "flux_dev": make_flux_dev,
    "flux2": make_flux2,
    "sana": make_sana,
    "z_image": make_z_image,
    "qwen": make_qwen,
}


def save_flow(folder: Path, family: str) -> Path:
    pipeline: DiffusionPipeline = FLOWS[family]()
    pipeline.save_pretrained(folder)
    return folder

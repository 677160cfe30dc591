"""Builders of tiny random models in the hub's layout, which open in a second: pipelines, CLIP,
captioners, writers.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Tokenizer,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from truelike import __version__  # noqa: F401  (importing truelike makes torchvision importable)

WIDTH, LENGTH = 32, 24
SCHEDULER = {  # Stable Diffusion 1.5's
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of single letters: every text has tokens, a word of n letters has n."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [
        *letters,
        *(letter + "</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    tokenizer = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]
    )
    tokenizer.model_max_length = LENGTH
    return tokenizer


def make_t5_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer of single letters."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(code) for code in range(33, 127))]
    return T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0)


def text_config(tokenizer: CLIPTokenizer, width: int = WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_vae(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **options,
    )


def make_unet(width: int, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        norm_num_groups=8,
        **({"attention_head_dim": 8} | options),
    )


def make_pipeline(
    prediction_type: str = "epsilon", width: int = WIDTH, **options: Any
) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x; 2.x differs by its prediction, the width of its text states and the
    UNet's options.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    return StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer, width)),
        tokenizer=tokenizer,
        unet=make_unet(width, **options),
        scheduler=PNDMScheduler(**SCHEDULER, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_sd2() -> StableDiffusionPipeline:
    return make_pipeline(
        "v_prediction", width=48, use_linear_projection=True, attention_head_dim=(2, 4)
    )


def make_lcm() -> LatentConsistencyModelPipeline:
    """Stable Diffusion 1.x distilled as a latent consistency model: its UNet is told the scale."""
    distilled = make_pipeline(time_cond_proj_dim=8)
    parts = distilled.components | {"scheduler": LCMScheduler.from_config(SCHEDULER)}
    return LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)


def make_sdxl() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    tokenizer, width_2, time = make_tokenizer(), 48, 8
    return StableDiffusionXLPipeline(
        vae=make_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, width_2)),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=make_unet(
            WIDTH + width_2,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=time,
            projection_class_embeddings_input_dim=6 * time + width_2,
        ),
        scheduler=EulerDiscreteScheduler.from_config(SCHEDULER),
        add_watermarker=False,
    )


def make_sd3(with_t5: bool = True) -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    tokenizer, t5_tokenizer, width_2, joint = make_tokenizer(), make_t5_tokenizer(), 48, 96
    t5 = T5Config(
        vocab_size=len(t5_tokenizer), d_model=joint, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return StableDiffusion3Pipeline(
        vae=make_vae(
            shift_factor=0.1, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, width_2)),
        text_encoder_3=T5EncoderModel(t5).eval() if with_t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        tokenizer_3=t5_tokenizer if with_t5 else None,
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=joint,
            pooled_projection_dim=WIDTH + width_2,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


FAMILIES = {"sd1": make_pipeline, "sd2": make_sd2, "sdxl": make_sdxl, "sd3": make_sd3}


def save_generator(folder: Path, family: str = "sd1") -> Path:
    pipeline: DiffusionPipeline = FAMILIES[family]()
    pipeline.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, width: int = WIDTH) -> Path:
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    text = text_config(tokenizer).to_dict()
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=VISION, projection_dim=width)
    ).save_pretrained(folder)
    size = {"shortest_edge": 16}
    CLIPImageProcessor(size=size, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    torch.manual_seed(2)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        "red",
        "shoe",
        "on",
        "white",
        "a",
    ]
    tokenizer: Any = BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, bos_token="[DEC]"
    )
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 5,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "sep_token_id": 3,
    }
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    )
    bias = torch.zeros(len(words))
    bias[[0, 1, 2, 3, 4, 5]] = -100.0  # a random model that says words
    model.text_decoder.cls.predictions.decoder.bias.data.copy_(bias)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(
        folder
    )
    return folder


def save_vit_gpt2(folder: Path) -> Path:
    torch.manual_seed(3)
    tokenizer = make_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    gpt2 = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        add_cross_attention=True,
        **ends,
    )
    model = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(**VISION)), decoder=GPT2LMHeadModel(gpt2)
    )
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = (
        tokenizer.bos_token_id
    )
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WORDS = ["red", "shoe", "on", "white", "a"]


def word_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a few words; ``</s>`` begins, ends and pads, as in OPT."""
    vocabulary = ["</s>", "<unk>", *special, *WORDS]
    model = Tokenizer(
        WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    model.pre_tokenizer = WhitespaceSplit()
    ends = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=model, additional_special_tokens=list(special), **ends
    )


def save_blip2(folder: Path) -> Path:
    torch.manual_seed(4)
    tokenizer = word_tokenizer("<image>")
    tokenizer.image_token = "<image>"
    text = {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
    }
    text |= {
        "ffn_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    text |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    former = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    former |= {"num_attention_heads": 2, "encoder_hidden_size": 16}
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=former,
        text_config=text,
        num_query_tokens=4,
        image_token_index=image_token,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 16, "width": 16})
    Blip2Processor(processor, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    """A captioner that chats."""
    torch.manual_seed(5)
    tokenizer = word_tokenizer("<image>")
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    text |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model"} | VISION,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} a",
    ).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, chat_template: str | None = None) -> Path:
    """A causal language model."""
    torch.manual_seed(6)
    tokenizer = word_tokenizer()
    tokenizer.chat_template = chat_template
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2, **ends
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """A sequence-to-sequence language model."""
    torch.manual_seed(7)
    tokenizer = word_tokenizer()
    ends = {"decoder_start_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **ends
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

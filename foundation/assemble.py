"""Puts the trained parts together as the hub lays models out, weights in half precision."""

import shutil

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
)

from foundation import generator
from foundation.paths import BACKBONE, CAPTIONER, GENERATOR, IMAGE_TOWER, MODELS, VAE


def main() -> None:
    half = torch.float16
    shutil.rmtree(MODELS, ignore_errors=True)
    processor = CLIPProcessor.from_pretrained(IMAGE_TOWER)
    autoencoder = AutoencoderKL.from_pretrained(VAE).to(half)
    unet = UNet2DConditionModel.from_pretrained(GENERATOR).to(half)
    for part in (autoencoder, unet):
        part.register_to_config(_name_or_path="")  # would be the path where it was built
    StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel.from_pretrained(IMAGE_TOWER).to(half),
        tokenizer=processor.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            **generator.SCHEDULER, steps_offset=1, clip_sample=False, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(MODELS / "generator")
    CLIPModel.from_pretrained(IMAGE_TOWER).to(half).save_pretrained(MODELS / "encoder")
    processor.save_pretrained(MODELS / "encoder")
    processor.image_processor.save_pretrained(MODELS / "encoder")
    BlipForConditionalGeneration.from_pretrained(CAPTIONER).to(half).save_pretrained(
        MODELS / "captioner"
    )
    captions = BlipProcessor.from_pretrained(CAPTIONER)
    captions.save_pretrained(MODELS / "captioner")
    captions.image_processor.save_pretrained(MODELS / "captioner")
    shutil.copytree(BACKBONE, MODELS / "backbone")


if __name__ == "__main__":
    main()

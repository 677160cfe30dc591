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

from foundation import BUILD, backbone, captioner, generator, image_tower, vae

DIRECTORY = BUILD / "models"


def main() -> None:
    half = torch.float16
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    processor = CLIPProcessor.from_pretrained(image_tower.DIRECTORY)
    autoencoder = AutoencoderKL.from_pretrained(vae.DIRECTORY).to(half)
    unet = UNet2DConditionModel.from_pretrained(generator.DIRECTORY).to(half)
    for part in (autoencoder, unet):
        part.register_to_config(_name_or_path="")  # would be the path where it was built
    StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel.from_pretrained(image_tower.DIRECTORY).to(half),
        tokenizer=processor.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            **generator.SCHEDULER, steps_offset=1, clip_sample=False, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(DIRECTORY / "generator")
    CLIPModel.from_pretrained(image_tower.DIRECTORY).to(half).save_pretrained(DIRECTORY / "encoder")
    processor.save_pretrained(DIRECTORY / "encoder")
    processor.image_processor.save_pretrained(DIRECTORY / "encoder")
    BlipForConditionalGeneration.from_pretrained(captioner.DIRECTORY).to(half).save_pretrained(
        DIRECTORY / "captioner"
    )
    captions = BlipProcessor.from_pretrained(captioner.DIRECTORY)
    captions.save_pretrained(DIRECTORY / "captioner")
    captions.image_processor.save_pretrained(DIRECTORY / "captioner")
    shutil.copytree(backbone.DIRECTORY, DIRECTORY / "backbone")


if __name__ == "__main__":
    main()

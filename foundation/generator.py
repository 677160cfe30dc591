"""Trains the denoiser on the latents of the catalogue, conditioned on the encoder's frozen text
tower.
"""

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from foundation import BUILD, encoder, vae
from foundation.captions import draw_captions
from foundation.corpus import SIZE
from foundation.settings import Generator, Settings
from foundation.training import Log, batches, load_corpus, schedule, to_unit

DIRECTORY = BUILD / "generator"
SCHEDULER = {  # that of Stable Diffusion 1.5
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def build() -> UNet2DConditionModel:
    """Build the network on (CHANNELS, 8, 8) latents."""
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=vae.CHANNELS,
        out_channels=vae.CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=encoder.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode uint8 images to scaled latents, (N, CHANNELS, 8, 8)."""
    with torch.autocast("cpu", torch.bfloat16):
        means = [
            autoencoder.encode(to_unit(part)).latent_dist.mean.float() for part in images.split(256)
        ]
    return torch.cat(means) * autoencoder.config.scaling_factor


def snr_weights(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Weight the epsilon loss of each timestep by min(SNR, gamma) / SNR (Hang et al., 2023):
    (N,).
    """
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / snr


def train(
    unet: UNet2DConditionModel, autoencoder: AutoencoderKL, settings: Generator, name: str
) -> None:
    """Train a network on the latents of an autoencoder and save the moving average of its weights
    to ``build``.
    """
    rng, generator = (
        np.random.default_rng(settings.seed),
        torch.Generator().manual_seed(settings.seed),
    )
    images, table = load_corpus("train")
    latents = encode(autoencoder, images)
    words = CLIPTokenizer.from_pretrained(encoder.DIRECTORY)
    text = CLIPTextModel.from_pretrained(encoder.DIRECTORY).eval()
    scheduler = DDPMScheduler(**SCHEDULER)
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), settings.learning_rate, weight_decay=0.01)
    decay = schedule(optimizer, settings.steps)
    with Log(name) as log:
        for step, rows in enumerate(
            batches(len(images), settings.batch_size, settings.steps, generator)
        ):
            captions, _ = draw_captions(table.iloc[rows.numpy()], rng)
            dropped = rng.random(len(captions)) < settings.caption_dropout
            captions = [
                "" if drop else caption for caption, drop in zip(captions, dropped, strict=True)
            ]
            tokens = words(captions, padding="max_length", truncation=True, return_tensors="pt")
            noise = torch.randn(latents[rows].shape, generator=generator)
            timesteps = torch.randint(
                scheduler.config.num_train_timesteps, (len(rows),), generator=generator
            )
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    states = text(tokens.input_ids).last_hidden_state
                prediction = unet(
                    scheduler.add_noise(latents[rows], noise, timesteps), timesteps, states
                ).sample
            error = (prediction.float() - noise).square().mean((1, 2, 3))
            loss = (snr_weights(scheduler, timesteps, settings.snr_gamma) * error).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            decay.step()
            keep = min(settings.ema_decay, (step + 1) / (step + 10))
            for slow, fast in zip(average.parameters(), unet.parameters(), strict=True):
                slow.lerp_(fast.detach(), 1 - keep)
            log.add(step, loss=loss.item(), error=error.mean().item())
            if (step + 1) % 500 == 0:
                average.save_pretrained(BUILD / name)  # to be looked at while training goes on
    average.save_pretrained(BUILD / name)


def main() -> None:
    settings = Settings.load().generator
    torch.manual_seed(settings.seed)
    train(build(), AutoencoderKL.from_pretrained(vae.DIRECTORY), settings, DIRECTORY.name)


if __name__ == "__main__":
    main()

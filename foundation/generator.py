"""Trains the denoiser on the latents of the catalogue, conditioned on the encoder's frozen text
tower.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from foundation import encoder, vae
from foundation.attributes import SIZE
from foundation.captions import draw_captions
from foundation.muon import Muon
from foundation.paths import CORPUS_INDEX, ENCODER, GENERATOR, VAE
from foundation.settings import Generator, Settings
from foundation.training import (
    Average,
    Draw,
    descend,
    fit,
    load_corpus,
    schedule,
    stage_inputs,
    to_unit,
)
from truelike.runtime.scratch import fingerprint, finished, scratch, write_finished

SCHEDULER = {  # that of Stable Diffusion 1.5
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
HELD_OUT = 500  # images whose loss is measured every so many steps
MEASURE_EVERY = 250


def build() -> UNet2DConditionModel:
    """Build the network on (CHANNELS, 16, 16) latents; no attention at that size, for speed."""
    return UNet2DConditionModel(
        sample_size=SIZE // vae.FACTOR,
        in_channels=vae.CHANNELS,
        out_channels=vae.CHANNELS,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=encoder.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, images: Tensor) -> NDArray[np.float16]:
    """Encode uint8 images to scaled latents, (N, CHANNELS, 16, 16)."""
    means = [autoencoder.encode(to_unit(part)).latent_dist.mean.half() for part in images.split(64)]
    return (torch.cat(means) * autoencoder.config.scaling_factor).numpy()


def corpus_latents(autoencoder: AutoencoderKL, images: Tensor, inputs: list[Path]) -> Tensor:
    """Encode the corpus once for all runs that have these inputs: float16 in the scratch folder."""
    with scratch("foundation/latents", fingerprint(len(images), *inputs)) as folder:
        file = folder / "latents.npy"
        if not finished(file):
            latents = encode(autoencoder, images)

            def write(path: Path) -> None:
                with path.open("wb") as stream:
                    np.save(stream, latents)

            write_finished(file, write)
        return torch.from_numpy(np.load(file, mmap_mode="c"))


class Conditioner:
    """Turns rows of corpus attributes into states of the frozen text tower."""

    def __init__(self, directory: Path) -> None:
        self.words = CLIPTokenizer.from_pretrained(directory)
        self.text = CLIPTextModel.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.no_grad()
    def states(self, rows: pd.DataFrame, dropout: float, rng: np.random.Generator) -> Tensor:
        """Draw a caption for each of N rows, some of them empty: states, (N, tokens, WIDTH)."""
        captions, _ = draw_captions(rows, rng)
        kept = rng.random(len(captions)) >= dropout
        captions = [caption if keep else "" for caption, keep in zip(captions, kept, strict=True)]
        tokens = self.words(captions, padding="max_length", truncation=True, return_tensors="pt")
        return self.text(tokens.input_ids).last_hidden_state


def snr_weights(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Weight the loss of each timestep by min(SNR, gamma) / SNR (Hang et al., 2023): (N,)."""
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / snr


def denoising_error(
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    latents: Tensor,
    states: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Predict the noise in N latents at random timesteps: squared error and timestep, (N,) each."""
    noise = torch.randn(latents.shape, generator=generator)
    last = scheduler.config.num_train_timesteps
    timesteps = torch.randint(last, (len(latents),), generator=generator)
    prediction = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states).sample
    return (prediction - noise).square().mean((1, 2, 3)), timesteps


def train(
    unet: UNet2DConditionModel, autoencoder: AutoencoderKL, settings: Generator, inputs: list[Path]
) -> UNet2DConditionModel:
    """Train a network on the latents of an autoencoder: the moving average of its weights."""
    images, table = load_corpus("train")
    latents = corpus_latents(autoencoder, images, [CORPUS_INDEX, VAE])
    conditioner, scheduler = Conditioner(ENCODER), DDPMScheduler(**SCHEDULER)
    held_out, held_out_table = load_corpus("held-out")
    held_out = torch.from_numpy(encode(autoencoder, held_out[:HELD_OUT])).float()
    rng = np.random.default_rng(settings.seed)
    held_out_states = conditioner.states(held_out_table[:HELD_OUT], 0.0, rng)
    average = Average(unet, settings.ema_decay)
    optimizer = Muon(unet.parameters(), settings.learning_rate, weight_decay=0.01)
    decay = schedule(optimizer, settings.steps, settings.hold)

    def weighted(error: Tensor, timesteps: Tensor) -> Tensor:
        return (snr_weights(scheduler, timesteps, settings.snr_gamma) * error).mean()

    @torch.no_grad()
    def held_out_loss() -> float:
        generator = torch.Generator().manual_seed(settings.seed)
        return weighted(
            *denoising_error(average.network, scheduler, held_out, held_out_states, generator)
        ).item()

    def one_step(draw: Draw) -> dict[str, float]:
        rows = draw.rows.numpy()
        states = conditioner.states(table.iloc[rows], settings.caption_dropout, draw.rng)
        batch = latents[draw.rows].float()
        error, timesteps = denoising_error(unet, scheduler, batch, states, draw.generator)
        loss = weighted(error, timesteps)
        descend(loss, optimizer, decay)
        average.update(unet, draw.step)
        values = {"loss": loss.item(), "error": error.mean().item()}
        if (draw.step + 1) % MEASURE_EVERY == 0:
            values["held_out_loss"] = held_out_loss()
            average.network.save_pretrained(GENERATOR)  # to be looked at while training goes on
        return values

    parts = {"unet": unet, "average": average, "optimizer": optimizer, "decay": decay}
    fit("generator", settings, len(images), parts, one_step, inputs)
    return average.network


def main() -> None:
    settings = Settings.load().generator
    torch.manual_seed(settings.seed)
    unet = build()
    autoencoder = AutoencoderKL.from_pretrained(VAE)
    train(unet, autoencoder, settings, stage_inputs("generator")).save_pretrained(GENERATOR)


if __name__ == "__main__":
    main()

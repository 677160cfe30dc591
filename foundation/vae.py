"""Trains the autoencoder, a codec for any look: on the catalogue and on changed looks of it."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from foundation.attributes import SIZE
from foundation.muon import Muon
from foundation.paths import VAE
from foundation.settings import Settings, Training
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs, to_unit

KL_WEIGHT = 1e-6  # that of Stable Diffusion
LATENT_NOISE = 0.03  # of the latents' scale: the decoder forgives small errors of a generator
CHANNELS = 4
FACTOR = 2  # pixels for each latent
CHANGED = 0.25  # share of images for each change of look


def build() -> AutoencoderKL:
    """Build the network: (3, 32, 32) pixels to (CHANNELS, 16, 16) latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def change_look(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make some images grey, recoloured, inverted, of other contrast or textured.

    Shape (N, 3, H, W), values in [-1, 1].
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    changed = torch.rand(5, count, 1, 1, 1, generator=generator) < CHANGED
    images = torch.where(changed[0], images.mean(1, keepdim=True), images)
    order = torch.rand(count, 3, generator=generator).argsort(1)[:, :, None, None].expand_as(images)
    images = torch.where(changed[1], images.gather(1, order), images)
    images = torch.where(changed[2], -images, images)
    contrast = (images - uniform(-0.5, 0.5)) * uniform(0.5, 2) + uniform(-0.3, 0.3)
    images = torch.where(changed[3], contrast, images)
    texture = torch.randn(count, 1, *images.shape[2:], generator=generator) * uniform(0, 0.2)
    return torch.where(changed[4], images + texture, images).clamp(-1, 1)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compare pixels, hue, and differences to neighbours (sharp edges): a scalar."""
    error = output - target
    loss = error.square().mean((1, 2, 3)).sqrt().mean() + error.abs().mean()
    loss = loss + (error - error.mean(1, keepdim=True)).abs().mean()
    return loss + 0.25 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: Tensor) -> None:
    """Give the latents of uint8 images mean 0 in each channel, and set the scaling factor.

    The mean goes into the biases on both sides of the latents, because Stable Diffusion's pipeline
    reads no shift factor.
    """
    latents = torch.cat([vae.encode(to_unit(part)).latent_dist.mean for part in images.split(250)])
    mean = latents.mean((0, 2, 3))
    vae.quant_conv.bias[:CHANNELS] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    scale = (latents - mean[:, None, None]).square().mean().sqrt()
    vae.register_to_config(scaling_factor=1 / scale.item())


def train(images: Tensor, settings: Training, inputs: list[Path]) -> AutoencoderKL:
    """Train an autoencoder on uint8 images, (N, 3, H, W)."""
    torch.manual_seed(settings.seed)
    vae = build()
    optimizer = Muon(vae.parameters(), settings.learning_rate, weight_decay=0.01)
    decay = schedule(optimizer, settings.steps)

    def one_step(draw: Draw) -> dict[str, float]:
        target = change_look(to_unit(images[draw.rows]), draw.generator)
        posterior = vae.encode(target).latent_dist
        latents = posterior.sample(draw.generator)
        noise = LATENT_NOISE * torch.randn(latents.shape, generator=draw.generator)
        output = vae.decode(latents + noise * latents.std().detach()).sample
        loss = reconstruction_loss(output, target)
        kl = posterior.kl().mean() / latents[0].numel()
        descend(loss + KL_WEIGHT * kl, optimizer, decay)
        error = F.mse_loss(output.detach(), target) / 4
        return {"loss": loss.item(), "kl": kl.item(), "psnr": -10 * error.log10().item()}

    fit(
        "vae",
        settings,
        len(images),
        {"vae": vae, "optimizer": optimizer, "decay": decay},
        one_step,
        inputs,
    )
    standardise(vae.eval(), images[:: max(1, len(images) // 4000)])
    return vae


def main() -> None:
    images, _ = load_corpus("train")
    train(images, Settings.load().vae, stage_inputs("vae")).save_pretrained(VAE)


if __name__ == "__main__":
    main()

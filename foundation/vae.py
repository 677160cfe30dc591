"""Trains the autoencoder on the catalogue and on inverted, grey and recoloured versions of it."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from foundation import BUILD
from foundation.corpus import SIZE
from foundation.settings import Settings
from foundation.training import Log, batches, load_corpus, schedule, to_unit

DIRECTORY = BUILD / "vae"
KL_WEIGHT = 5e-4
CHANNELS = 8
# Share of images for each change of look; with large shares the network learns no hue at all.
RECOLOURED = 0.1


def build() -> AutoencoderKL:
    """Build the network: (3, 32, 32) pixels to (CHANNELS, 8, 8) latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change the look of some images at random: inverted, grey, other channel order, less contrast;
    in [-1, 1].
    """
    count = len(images)
    changed = torch.rand(4, count, 1, 1, 1, generator=generator) < RECOLOURED
    images = torch.where(changed[0], -images, images)
    images = torch.where(changed[1], images.mean(1, keepdim=True), images)
    order = torch.rand(count, 3, generator=generator).argsort(1)[:, :, None, None].expand_as(images)
    images = torch.where(changed[2], images.gather(1, order), images)
    contrast = 0.6 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    return torch.where(changed[3], images * contrast, images)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compare pixels, their hue, their differences to neighbours (sharp edges) and their spectrum;
    a scalar.
    """
    error = output - target
    loss = error.abs().mean() + error.square().mean()
    loss = loss + 2 * (error - error.mean(1, keepdim=True)).abs().mean()
    for dimension in (2, 3):
        loss = loss + 0.5 * error.diff(dim=dimension).abs().mean()
    return loss + 0.25 * torch.fft.rfft2(error, norm="ortho").abs().mean()


def main() -> None:
    settings = Settings.load().vae
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    images, _ = load_corpus("train")
    vae = build()
    optimizer = torch.optim.AdamW(vae.parameters(), settings.learning_rate, weight_decay=0.01)
    decay = schedule(optimizer, settings.steps)
    with Log("vae") as log:
        for step, rows in enumerate(
            batches(len(images), settings.batch_size, settings.steps, generator)
        ):
            target = recolour(to_unit(images[rows]), generator)
            with torch.autocast("cpu", torch.bfloat16):
                posterior = vae.encode(target).latent_dist
                output = vae.decode(posterior.sample(generator)).sample
            loss = reconstruction_loss(output.float(), target)
            kl = posterior.kl().float().mean() / posterior.mean[0].numel()
            optimizer.zero_grad()
            (loss + KL_WEIGHT * kl).backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            decay.step()
            psnr = -10 * torch.log10(F.mse_loss(output.detach().float(), target) / 4)
            log.add(step, loss=loss.item(), kl=kl.item(), psnr=psnr.item())
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(to_unit(images[:: len(images) // 4000])).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    vae.save_pretrained(DIRECTORY)


if __name__ == "__main__":
    main()

"""Trains the autoencoder's decoder further while its encoder, and so the latent space, stays as it is."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from foundation import BUILD, vae
from foundation.settings import Settings
from foundation.training import Log, batches, load_corpus, schedule, to_unit
from foundation.vae import recolour, reconstruction_loss

DIRECTORY = BUILD / "decoder"


def main() -> None:
    settings = Settings.load().decoder
    generator = torch.Generator().manual_seed(settings.seed)
    images, _ = load_corpus("train")
    model = AutoencoderKL.from_pretrained(vae.DIRECTORY)
    parameters = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.01)
    decay = schedule(optimizer, settings.steps)
    with Log("decoder") as log:
        for step, rows in enumerate(batches(len(images), settings.batch_size, settings.steps, generator)):
            target = recolour(to_unit(images[rows]), generator)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    latents = model.encode(target).latent_dist.mean
                output = model.decode(latents).sample
            loss = reconstruction_loss(output.float(), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            decay.step()
            psnr = -10 * torch.log10(F.mse_loss(output.detach().float(), target) / 4)
            log.add(step, loss=loss.item(), psnr=psnr.item())
    model.save_pretrained(DIRECTORY)


if __name__ == "__main__":
    main()

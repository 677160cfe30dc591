"""Distils the generator to few steps: a LoRA trained by latent consistency distillation (LCM-LoRA,
Luo et al., 2023) that bakes in the guidance.
"""

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from foundation.generator import SCHEDULER, Conditioner, corpus_latents
from foundation.muon import Muon
from foundation.paths import ACCELERATOR, CORPUS_INDEX, ENCODER, GENERATOR, VAE
from foundation.settings import Accelerator, Settings
from foundation.training import Draw, descend, fit, load_corpus, schedule, stage_inputs

SOLVER_STEPS = 50  # of the teacher's schedule, each distilled into one
HUBER = 0.001  # the width of the pseudo-Huber loss
LAYERS = [  # those of LCM-LoRA
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out"),
    *("ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    *("downsamplers.0.conv", "upsamplers.0.conv"),
]


def without_noise(scheduler: DDPMScheduler, noisy: Tensor, noise: Tensor, at: Tensor) -> Tensor:
    """Remove the predicted noise from latents (N, C, h, w) at timesteps (N,): the image's."""
    alphas = scheduler.alphas_cumprod[at].view(-1, 1, 1, 1)
    return (noisy - (1 - alphas).sqrt() * noise) / alphas.sqrt()


def consistent(
    unet: UNet2DConditionModel, solver: LCMScheduler, noisy: Tensor, at: Tensor, states: Tensor
) -> Tensor:
    """What the consistency function says the image's latent is: eq. 9 of LCM, (N, C, h, w)."""
    image = without_noise(solver, noisy, unet(noisy, at, states).sample, at)
    skip, out = solver.get_scalings_for_boundary_condition_discrete(at.view(-1, 1, 1, 1))
    return skip * noisy + out * image


@torch.no_grad()
def solve(
    unet: UNet2DConditionModel,
    solver: LCMScheduler,
    noisy: Tensor,
    at: Tensor,
    before: Tensor,
    states: tuple[Tensor, Tensor],
    guidance_scale: float,
) -> Tensor:
    """Take the teacher's guided DDIM step from timesteps `at` to `before`; `states` are those of
    the captions and of the empty one.
    """
    given, empty = unet(noisy.repeat(2, 1, 1, 1), at.repeat(2), torch.cat(states)).sample.chunk(2)
    noise = empty + guidance_scale * (given - empty)
    return solver.add_noise(without_noise(solver, noisy, noise, at), noise, before)


def distil(unet: UNet2DConditionModel, settings: Accelerator) -> None:
    """Train a LoRA on a generator's denoiser, in place."""
    images, table = load_corpus("train")
    autoencoder = AutoencoderKL.from_pretrained(VAE)
    latents = corpus_latents(autoencoder, images, [CORPUS_INDEX, VAE])
    conditioner, solver = Conditioner(ENCODER), LCMScheduler(**SCHEDULER)
    torch.manual_seed(settings.seed)
    unet.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=LAYERS))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = Muon(trained, settings.learning_rate, weight_decay=0.0)
    decay = schedule(optimizer, settings.steps)
    apart = SCHEDULER["num_train_timesteps"] // SOLVER_STEPS

    def one_step(draw: Draw) -> dict[str, float]:
        rows = table.iloc[draw.rows.numpy()]
        states = conditioner.states(rows, 0.0, draw.rng), conditioner.states(rows, 1.0, draw.rng)
        clean = latents[draw.rows].float()
        step = torch.randint(1, SOLVER_STEPS + 1, (len(clean),), generator=draw.generator)
        at = apart * step - 1
        before = (at - apart).clamp(min=0)
        noisy = solver.add_noise(clean, torch.randn(clean.shape, generator=draw.generator), at)
        unet.disable_adapters()
        earlier = solve(unet, solver, noisy, at, before, states, settings.guidance_scale)
        unet.enable_adapters()
        with torch.no_grad():
            target = consistent(unet, solver, earlier, before, states[0])
        error = consistent(unet, solver, noisy, at, states[0]) - target
        loss = ((error.square() + HUBER**2).sqrt() - HUBER).mean()
        descend(loss, optimizer, decay)
        return {"loss": loss.item()}

    parts = {"unet": unet, "optimizer": optimizer, "decay": decay}
    fit("accelerator", settings, len(images), parts, one_step, stage_inputs("accelerator"))


def save(unet: UNet2DConditionModel) -> None:
    """Save the LoRA as stock pipelines load one, in half precision."""
    layers = {name: value.half() for name, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(ACCELERATOR, unet_lora_layers=layers)


def main() -> None:
    unet = UNet2DConditionModel.from_pretrained(GENERATOR)
    distil(unet, Settings.load().accelerator)
    save(unet)


if __name__ == "__main__":
    main()

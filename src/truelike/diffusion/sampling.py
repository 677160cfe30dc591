"""Sampling from noise or from the noised latents of real images (RF's latent prior), one generator per image."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from truelike.config import SamplerName

SAMPLERS: dict[SamplerName, tuple[Any, dict[str, Any]]] = {
    "unipc": (UniPCMultistepScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),  # its default is for pixels, not for latents
    "euler": (EulerDiscreteScheduler, {}),
}


def make_sampler(name: SamplerName, config: Any) -> Any:
    """A deterministic sampler with the noise schedule of a checkpoint's scheduler config."""
    kind, options = SAMPLERS[name]
    return kind.from_config(config, **options)


def start_at(scheduler: Any, steps: int, strength: float) -> Tensor:
    """Prepare `scheduler` and return the timesteps to run: the last int(steps * strength) of `steps`, at least one.

    The image-to-image convention: 30 steps at 0.75 run 22, the first at t = 733 on Stable Diffusion 1.5.
    """
    scheduler.set_timesteps(steps)
    skipped = steps - max(1, min(int(steps * strength), steps))
    if hasattr(scheduler, "set_begin_index"):  # DDIM finds its place by the timestep
        scheduler.set_begin_index(skipped * scheduler.order)
    return scheduler.timesteps[skipped * scheduler.order :]


def draw_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise (N, *shape), each image's from its own seed, on the CPU and so the same on every device."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.inference_mode()
def sample(
    unet: Any,
    scheduler: Any,
    states: Tensor,
    negative: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    prior: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Sample latents (N, C, h, w) from `noise` given text states (N, L, W) and the negative prompt's states (L, W).

    With `prior` (N, C, h, w) and strength < 1, sampling starts at z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps (RF).
    Classifier-free guidance is off at guidance_scale <= 1.
    """
    timesteps = start_at(scheduler, steps, strength)
    if prior is None or strength >= 1:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(prior, noise, timesteps[:1])
    guided = guidance_scale > 1
    context = torch.cat([negative.expand_as(states), states]) if guided else states
    for timestep in timesteps:
        inputs = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        predicted = unet(inputs, timestep, encoder_hidden_states=context).sample
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + guidance_scale * (conditional - unconditional)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents

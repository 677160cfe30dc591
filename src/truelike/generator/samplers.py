"""Sampling from noise or from the noised latents of real images (RF's latent prior), one random
generator per image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from truelike.generator.family import Conditioning, Family
from truelike.generator.feedback import Feedback, criterion_gradient, follow
from truelike.generator.generator import Generator
from truelike.generator.settings import SamplerName
from truelike.runtime.errors import TruelikeError

Sampler = tuple[Any, dict[str, Any]]

TRAILING = {"timestep_spacing": "trailing"}  # few steps begin at pure noise
SAMPLERS: dict[SamplerName, Sampler] = {
    "unipc": (UniPCMultistepScheduler, {}),
    "dpm++2m": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "ddim": (DDIMScheduler, {"clip_sample": False}),  # its default is for pixels, not for latents
    "ddim-trailing": (DDIMScheduler, {"clip_sample": False} | TRAILING),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-trailing": (EulerDiscreteScheduler, TRAILING),
    "lcm": (LCMScheduler, {}),
}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
FLOW_SAMPLERS: dict[SamplerName, Sampler] = {  # Karras' noise levels are not those of a flow
    "unipc": (UniPCMultistepScheduler, FLOW),
    "dpm++2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"} | FLOW),
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
    "lcm": (FlowMatchLCMScheduler, {}),
}


@dataclass(frozen=True)
class Sampling:
    """How to sample: `steps` of a schedule, of which the last `strength` are run; classifier-free
    guidance, which is off at guidance_scale <= 1 and outside `guidance_interval`, fractions of the
    training timesteps (Kynkäänniemi et al. 2024). A guidance-distilled denoiser is told the scale,
    outside of the interval 1. `feedback` is of a network, on the way.
    """

    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    strength: float = 1.0
    feedback: Feedback | None = None


FLOW_MATCHING = "FlowMatch"  # how the names of its own schedulers begin


def is_flow(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's scheduler, of this class and config, is of flow matching: x_t = (1 -
    sigma) x_0 + sigma eps, and the denoiser predicts eps - x_0.
    """
    return kind.startswith(FLOW_MATCHING) or config.get("prediction_type") == "flow_prediction"


def check_sampler(
    name: SamplerName, kind: str, config: Mapping[str, Any], section: str = "synthesize"
) -> None:
    """Raise TruelikeError if the sampler of a section of the parameters cannot sample from a
    generator with a scheduler of this class and config.
    """
    if is_flow(kind, config) and name not in FLOW_SAMPLERS:
        raise TruelikeError(
            f"{section}.sampler: {name!r} cannot sample from a flow-matching generator; use one of "
            f"{', '.join(FLOW_SAMPLERS)}"
        )


def make_sampler(name: SamplerName, scheduler: Any) -> Any:
    """A sampler with the noise schedule of a checkpoint's scheduler; all but ``lcm`` are
    deterministic.

    Raises TruelikeError for a sampler that flow matching does not have.
    """
    config, known = dict(scheduler.config), type(scheduler).__name__
    if not is_flow(known, config):
        kind, options = SAMPLERS[name]
        return kind.from_config(config, **options)
    check_sampler(name, known, config)
    kind, options = FLOW_SAMPLERS[name]
    shift = config["shift"] if "shift" in config else config["flow_shift"]
    if "use_flow_sigmas" in options:
        return kind.from_config(config, **options, flow_shift=shift)
    own = {name: value for name, value in config.items() if name not in ("flow_shift", *FLOW)}
    return kind.from_config(own, **options, shift=shift)


def spacing(family: Family, scheduler: Any, shape: Sequence[int], steps: int) -> dict[str, Any]:
    """What a family of flow matching tells the schedule of `steps` for latents of a shape (C, h,
    w), as its stock pipeline does.
    """
    told: dict[str, Any] = {}
    if family.even_sigmas and type(scheduler).__name__.startswith(FLOW_MATCHING):
        told["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    if scheduler.config.get("use_dynamic_shifting"):
        assert family.mu is not None
        told["mu"] = family.mu(scheduler.config, shape, steps)
    return told


def start_at(scheduler: Any, steps: int, strength: float, **told: Any) -> Tensor:
    """Prepare `scheduler`, with what it is `told` of its schedule, and return the timesteps to run:
    the last int(steps * strength) of `steps`, at least one.

    The image-to-image convention: 30 steps at 0.75 run 22, the first at t = 733 on Stable Diffusion
    1.5.
    """
    scheduler.set_timesteps(steps, **told)
    skipped = steps - max(1, min(int(steps * strength), steps))
    if hasattr(scheduler, "set_begin_index"):  # DDIM finds its place by the timestep
        scheduler.set_begin_index(skipped * scheduler.order)
    return scheduler.timesteps[skipped * scheduler.order :]


def image_rngs(seeds: Sequence[int]) -> list[torch.Generator]:
    """A random generator per image, each from its own seed, on the CPU and so the same on every
    device.
    """
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw_noise(rngs: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise (N, *shape), each image's from its own random generator."""
    return torch.stack([torch.randn(tuple(shape), generator=rng) for rng in rngs])


def start_latents(scheduler: Any, first: Tensor, noise: Tensor, prior: Tensor | None) -> Tensor:
    """Where sampling starts, at the timestep `first` (1,): scaled noise, or with `prior` (N, C, h,
    w) z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps (RF), for flow matching (1 - sigma) z_0 + sigma
    eps.
    """
    flow = hasattr(scheduler, "scale_noise")
    if prior is None:
        return noise if flow else noise * scheduler.init_noise_sigma
    if flow:
        return scheduler.scale_noise(prior, first, noise)
    return scheduler.add_noise(prior, noise, first)


@torch.no_grad()
def sample(
    generator: Generator,
    scheduler: Any,
    conditioning: Conditioning,
    negative: Conditioning,
    noise: Tensor,
    rngs: Sequence[torch.Generator],
    how: Sampling,
    prior: Tensor | None = None,
) -> Tensor:
    """Sample latents (N, C, h, w) from `noise`, given what N prompts and one negative prompt tell
    the denoiser.

    With `prior` (N, C, h, w) and strength < 1, sampling starts at the noised prior. `rngs` draw
    what a sampler adds on the way (``lcm``).
    """
    told = spacing(generator.family, scheduler, noise.shape[1:], how.steps)
    timesteps = start_at(scheduler, how.steps, how.strength, **told)
    flow = hasattr(scheduler, "scale_noise")  # where latents need no scaling
    latents = start_latents(scheduler, timesteps[:1], noise, prior if how.strength < 1 else None)
    trained = scheduler.config.num_train_timesteps
    low, high = (fraction * trained for fraction in how.guidance_interval)
    both = {
        name: torch.cat([negative[name].expand_as(value), value])
        for name, value in conditioning.items()
    }
    stochastic = isinstance(scheduler, LCMScheduler | FlowMatchLCMScheduler)
    random = {"generator": list(rngs)} if stochastic else {}
    for step, timestep in enumerate(timesteps):
        scale = how.guidance_scale if low <= float(timestep) <= high else 1.0
        guided = scale > 1 and not generator.is_told_guidance
        own = conditioning
        if generator.is_told_guidance:
            own = own | {"guidance": latents.new_full((len(latents),), scale)}
        if how.feedback and step % how.feedback.every == 0:
            gradient = criterion_gradient(
                how.feedback.score, generator.denoise, scheduler, latents, timestep, own
            )
            latents = follow(gradient, latents, how.feedback.weight)
        given = both if guided else own
        inputs = torch.cat([latents, latents]) if guided else latents
        inputs = inputs if flow else scheduler.scale_model_input(inputs, timestep)
        predicted = generator.denoise(inputs, timestep, given)
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = generator.family.guide(conditional, unconditional, scale)
        latents = scheduler.step(predicted, timestep, latents, **random).prev_sample
    return latents

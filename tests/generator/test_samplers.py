import pytest
import torch
from diffusers import AutoPipelineForImage2Image, FlowMatchEulerDiscreteScheduler

from tests.support import tiny_models
from truelike.generator.family import Conditioning
from truelike.generator.generator import Generator
from truelike.generator.samplers import (
    FLOW_SAMPLERS,
    SAMPLERS,
    Sampling,
    draw_noise,
    image_rngs,
    make_sampler,
    sample,
    start_at,
)
from truelike.runtime.errors import TruelikeError

PROMPTS, NEGATIVE, SEEDS = ["a boot", "a bag"], "blurry", [3, 4]
PRIOR = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9))


def encode(opened: Generator, prompts: list[str]) -> Conditioning:
    """The conditioning of prompts, each encoded alone."""
    with torch.no_grad():
        alone = [opened.encode([prompt]) for prompt in prompts]
    return {name: torch.cat([states[name] for states in alone]) for name in alone[0]}


def ours(pipeline, sampler: str, **options) -> torch.Tensor:
    """Eight steps for two prompts by our loop, latents."""
    opened, prior = Generator(pipeline), options.pop("prior", None)
    conditioning, negative = encode(opened, PROMPTS), encode(opened, [NEGATIVE])
    rngs = image_rngs(SEEDS)
    noise = draw_noise(rngs, (4, 8, 8))
    scheduler, how = make_sampler(sampler, opened.scheduler), Sampling(steps=8, **options)
    return sample(opened, scheduler, conditioning, negative, noise, rngs, how, prior)


def stock(pipeline, sampler: str, **options) -> torch.Tensor:
    """The same by diffusers' own pipeline, from the prompts' text on."""
    checkpoint, pipeline.scheduler = pipeline.scheduler, make_sampler(sampler, pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        generator=image_rngs(SEEDS),
        num_inference_steps=8,
        output_type="latent",
        **options,
    ).images
    pipeline.scheduler = checkpoint
    return made


def test_strength_follows_the_image_to_image_convention() -> None:
    unipc = make_sampler("unipc", tiny_models.make_pipeline().scheduler)
    timesteps = start_at(unipc, 30, 0.75)
    assert len(timesteps) == 22
    assert int(timesteps[0]) == 733
    assert float(unipc.alphas_cumprod[733].sqrt()) == pytest.approx(0.2535, abs=1e-4)
    assert len(start_at(unipc, 30, 1.0)) == 30
    assert len(start_at(unipc, 30, 0.01)) == 1


CASES = [(family, sampler) for family in ("sd1", "sd2", "sdxl") for sampler in SAMPLERS]
CASES += [
    ("sd3", sampler) for sampler in FLOW_SAMPLERS if sampler != "lcm"
]  # stock gives its noise no generator


@pytest.mark.parametrize(("family", "sampler"), CASES)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_samples_equal_the_stock_pipelines(
    family: str, sampler: str, guidance_scale: float
) -> None:
    pipeline = tiny_models.FAMILIES[family]()
    expected = stock(pipeline, sampler, height=16, width=16, guidance_scale=guidance_scale)
    made = ours(pipeline, sampler, guidance_scale=guidance_scale)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    if family == "sd3" and sampler != "euler":
        return  # the stock image-to-image pipeline knows no other
    other = AutoPipelineForImage2Image.from_pipe(pipeline)
    expected = stock(other, sampler, image=PRIOR, strength=0.75, guidance_scale=guidance_scale)
    made = ours(pipeline, sampler, prior=PRIOR, strength=0.75, guidance_scale=guidance_scale)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 8.5])
def test_a_unet_that_is_told_the_guidance_scale(guidance_scale: float) -> None:
    told = tiny_models.make_lcm()
    told.set_progress_bar_config(disable=True)
    expected = told(
        prompt=PROMPTS,
        generator=image_rngs(SEEDS),
        num_inference_steps=8,
        guidance_scale=guidance_scale,
        height=16,
        width=16,
        output_type="latent",
    ).images
    made = ours(told, "lcm", guidance_scale=guidance_scale)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    plain = tiny_models.make_pipeline(time_cond_proj_dim=8)
    other = AutoPipelineForImage2Image.from_pipe(plain)
    expected = stock(other, "euler", image=PRIOR, strength=0.75, guidance_scale=guidance_scale)
    made = ours(plain, "euler", prior=PRIOR, strength=0.75, guidance_scale=guidance_scale)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_outside_of_the_interval_a_denoiser_is_told_no_guidance() -> None:
    told = tiny_models.make_lcm()
    plain, guided = (ours(told, "ddim", guidance_scale=scale) for scale in (1.0, 8.5))
    never = ours(told, "ddim", guidance_scale=8.5, guidance_interval=(1.0, 1.0))
    assert torch.equal(never, plain)
    assert not torch.allclose(guided, plain)


def test_stable_diffusion_3_works_without_its_third_text_encoder() -> None:
    pipeline = tiny_models.make_sd3(with_t5=False)
    expected = stock(pipeline, "euler", height=16, width=16, guidance_scale=3.0)
    torch.testing.assert_close(
        ours(pipeline, "euler", guidance_scale=3.0), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_flow_s_prior_is_mixed_with_noise_linearly(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = FlowMatchEulerDiscreteScheduler(shift=3.0)
    seen = []

    def denoise(
        latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        seen.append((latents, float(timestep) / 1000))
        return torch.zeros_like(latents)

    rngs = image_rngs(SEEDS)
    noise = draw_noise(rngs, PRIOR.shape[1:])
    scheduler = make_sampler(sampler, checkpoint)
    how = Sampling(steps=8, guidance_scale=1.0, strength=0.5)
    opened = Generator(tiny_models.make_sd3())
    monkeypatch.setattr(opened, "denoise", denoise)
    sample(opened, scheduler, {}, {}, noise, rngs, how, PRIOR)
    latents, sigma = seen[0]
    assert len(seen) == 4
    assert 0.6 < sigma < 0.9
    torch.testing.assert_close(
        latents, (1 - sigma) * PRIOR + sigma * noise, atol=1e-2, rtol=0
    )  # t is whole


def test_a_sampler_that_flow_matching_lacks_is_refused() -> None:
    with pytest.raises(
        TruelikeError, match=r"'ddim' cannot sample from a flow.* unipc, dpm\+\+2m, euler, lcm"
    ):
        make_sampler("ddim", FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("family", ["sd1", "sd3"])
def test_lcm_draws_each_image_s_noise_from_its_own_seed(family: str) -> None:
    pipeline = tiny_models.FAMILIES[family]()
    made = ours(pipeline, "lcm", guidance_scale=1.0)
    torch.manual_seed(5)
    assert torch.equal(ours(pipeline, "lcm", guidance_scale=1.0), made)
    opened = Generator(pipeline)
    second = encode(opened, PROMPTS[1:])
    rngs = image_rngs(SEEDS[1:])
    noise = draw_noise(rngs, (4, 8, 8))
    lcm = make_sampler("lcm", opened.scheduler)
    how = Sampling(steps=8, guidance_scale=1.0)
    alone = sample(opened, lcm, second, second, noise, rngs, how)
    torch.testing.assert_close(alone[0], made[1], atol=1e-4, rtol=1e-4)


def test_guidance_is_applied_inside_its_interval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_models.make_pipeline()
    calls = []

    def denoise(
        latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        calls.append((int(timestep), len(latents), len(conditioning["states"])))
        return latents

    how = Sampling(steps=10, guidance_scale=2.0, guidance_interval=(0.3, 0.6))
    rngs = image_rngs(SEEDS)
    states, negative = {"states": torch.zeros(2, 1)}, {"states": torch.ones(1, 1)}
    scheduler = make_sampler("ddim", pipeline.scheduler)
    opened = Generator(pipeline)
    monkeypatch.setattr(opened, "denoise", denoise)
    sample(opened, scheduler, states, negative, draw_noise(rngs, (4, 8, 8)), rngs, how)
    assert calls == [
        (t, 4 if 300 <= t <= 600 else 2, 4 if 300 <= t <= 600 else 2) for t in range(901, 0, -100)
    ]


def test_an_empty_interval_is_no_guidance_and_a_full_one_is_all() -> None:
    pipeline = tiny_models.make_pipeline()
    plain, guided = (ours(pipeline, "euler", guidance_scale=scale) for scale in (1.0, 3.0))
    assert torch.equal(
        ours(pipeline, "euler", guidance_scale=3.0, guidance_interval=(1.0, 1.0)), plain
    )
    assert torch.equal(
        ours(pipeline, "euler", guidance_scale=3.0, guidance_interval=(0.0, 1.0)), guided
    )
    between = ours(pipeline, "euler", guidance_scale=3.0, guidance_interval=(0.2, 0.7))
    assert not torch.allclose(between, plain)
    assert not torch.allclose(between, guided)


def test_noise_belongs_to_the_image_not_to_the_batch() -> None:
    together = draw_noise(image_rngs([5, 6, 2**63 - 1]), (4, 2, 2))
    assert torch.equal(draw_noise(image_rngs([6]), (4, 2, 2))[0], together[1])
    assert not torch.equal(together[0], together[1])

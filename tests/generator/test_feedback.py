"""Feedback guidance: the gradient of the criterion, and what a step along it does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import tiny_flows, tiny_models
from tests.support.models import float32
from truelike.generator.feedback import (
    SCALE,
    Feedback,
    criterion_gradient,
    expected_latents,
    follow,
)
from truelike.generator.generator import Generator
from truelike.generator.samplers import (
    Sampling,
    draw_noise,
    image_rngs,
    make_sampler,
    sample,
    spacing,
    start_at,
)


@pytest.fixture(scope="module", params=[*tiny_models.FAMILIES, *tiny_flows.FLOWS])
def opened(request, tmp_path_factory) -> Generator:
    folder, family = tmp_path_factory.mktemp(request.param), request.param
    flows = family in tiny_flows.FLOWS
    save = tiny_flows.save_flow if flows else tiny_models.save_generator
    return Generator.open(float32(save(folder, family)))


few = pytest.mark.parametrize("opened", ["sd1", "flux2"], indirect=True)


def brightness(generator: Generator, weight: float = 0.05, every: int = 1) -> Feedback:
    """A criterion that every step can raise: the mean of the decoded image."""

    def score(latents: Tensor) -> Tensor:
        return generator.decode(latents).mean((1, 2, 3))

    return Feedback(score, weight, every)


def start(generator: Generator, count: int = 2) -> tuple[Tensor, dict]:
    noise = draw_noise(image_rngs(range(count)), generator.latent_shape(16, 16))
    with torch.no_grad():
        given = generator.encode(["a red boot"] * count)
    if generator.is_told_guidance:
        given["guidance"] = torch.full((count,), 2.0)
    return noise, given


def timesteps(generator: Generator, sampler: Any, noise: Tensor) -> Tensor:
    told = spacing(generator.family, sampler, noise.shape[1:], 4)
    return start_at(sampler, 4, 1.0, **told)


def unit(values: Tensor) -> Tensor:
    return values / torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize("name", ["unipc", "euler"])
def test_the_gradient_is_that_of_finite_differences(opened, name):
    sampler = make_sampler(name, opened.scheduler)
    noise, given = start(opened)
    timestep = timesteps(opened, sampler, noise)[1]
    feedback = brightness(opened)

    def criterion(latents: Tensor) -> Tensor:
        with torch.no_grad():
            return feedback.score(
                expected_latents(opened.denoise, sampler, latents, torch.float32, timestep, given)
            )

    given_to = opened.denoise, sampler, noise, timestep, given
    found = criterion_gradient(feedback.score, *given_to) / SCALE
    straight = unit(found)
    aside = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    step = 0.05
    for direction in (straight, unit(straight + unit(aside))):
        change = criterion(noise + step * direction) - criterion(noise - step * direction)
        slope = (found * direction).sum((1, 2, 3))
        torch.testing.assert_close(change / (2 * step), slope, rtol=0.03, atol=1e-5)
        assert (slope > 0).all()


@few
def test_an_image_moves_by_its_own_length_whatever_the_others_are(opened):
    sampler = make_sampler("unipc", opened.scheduler)
    noise, given = start(opened, 3)
    first = timesteps(opened, sampler, noise)[0]
    score = brightness(opened).score
    gradient = criterion_gradient(score, opened.denoise, sampler, noise, first, given)
    moved = follow(gradient, noise, 0.1) - noise
    lengths = torch.linalg.vector_norm(moved, dim=(1, 2, 3))
    torch.testing.assert_close(lengths, 0.1 * torch.linalg.vector_norm(noise, dim=(1, 2, 3)))
    own = {name: value[1:2] for name, value in given.items()}
    gradient = criterion_gradient(score, opened.denoise, sampler, noise[1:2], first, own)
    alone = follow(gradient, noise[1:2], 0.1)
    torch.testing.assert_close(alone, noise[1:2] + moved[1:2], atol=1e-4, rtol=1e-3)
    assert torch.equal(follow(torch.zeros_like(noise), noise, 0.1), noise)


def images(generator: Generator, feedback: Feedback | None, name: str = "unipc") -> Tensor:
    noise, given = start(generator)
    negative = {key: value[:1] for key, value in given.items()}
    how = Sampling(steps=4, guidance_scale=2.0, feedback=feedback)
    sampler = make_sampler(name, generator.scheduler)
    made = sample(generator, sampler, given, negative, noise, image_rngs([0, 1]), how)
    return generator.to_pixels(made)


@few
def test_no_weight_changes_no_byte_and_more_weight_raises_the_criterion(opened):
    plain = images(opened, None)
    assert torch.equal(images(opened, brightness(opened, weight=0.0)), plain)
    assert images(opened, brightness(opened)).float().mean() > plain.float().mean()


@few
def test_only_every_few_steps_are_guided(opened):
    calls = []

    def score(latents: Tensor) -> Tensor:
        calls.append(len(latents))
        return latents.mean((1, 2, 3))

    images(opened, Feedback(score, 0.05, 3), "euler")
    assert calls == [2, 2]  # before the first and the fourth of four steps

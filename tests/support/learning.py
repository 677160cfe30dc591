"""Short runs of style inversion and adaptation on tiny models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.support.models import float32
from truelike.adaptation.inversion import learn_style, style_of
from truelike.adaptation.lora import TrainingImages, learn_adapter, lora_shape
from truelike.adaptation.settings import Adapt, DistributionMatching, Invert
from truelike.generator.adapter import write_adapter
from truelike.generator.generator import Generator
from truelike.generator.states import map_states
from truelike.generator.style import write_style
from truelike.imageset.reading import ImageSet

INVERT = Invert(
    enabled=True,
    scope="set",
    token="<style>",
    initializer="photo",
    tokens_per_style=2,
    template="{class} {style}",
    steps=7,
    batch_size=3,
    lr=0.01,
    weight_decay=0.01,
    choose="last",
    checkpoint_every=3,
    seed=0,
)
ADAPT = Adapt(
    enabled=True,
    scope="set",
    rank=2,
    alpha=6,
    targets=("q", "k", "v", "out"),
    steps=7,
    batch_size=4,
    lr=0.01,
    weight_decay=0.01,
    clip=1.0,
    ema_decay=None,
    min_snr_gamma=5.0,
    caption_dropout=0.3,
    dm=DistributionMatching(
        weight=0.003, kernel="linear", reduction="sum", timesteps="per_sample", groups="batch"
    ),
    micro_batch_size=None,
    gradient_checkpointing="auto",
    choose="last",
    preview_every=None,
    checkpoint_every=3,
    seed=0,
)


def unet_output(pipeline: Any) -> torch.Tensor:
    """What the UNet of a pipeline says of two fixed inputs."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=rng)
    states = torch.randn(2, 24, 32, generator=rng)
    with torch.no_grad():
        return pipeline.unet(latents, torch.tensor([10, 700]), encoder_hidden_states=states).sample


def training_images(
    opened: Generator,
    real: ImageSet,
    prompts: Sequence[str] | None = None,
    vectors: np.ndarray | None = None,
) -> TrainingImages:
    """Real images as adaptation takes them; their prompts are of the class unless given."""
    texts = prompts or [f"a {name}" for name in real.index["class_name"]]
    states = map_states(opened, texts, [""])
    return TrainingImages(real, opened.encode_images(real), texts, states, vectors)


def learn_and_write_style(
    generator: Path, real: ImageSet, folder: Path, settings: Invert = INVERT
) -> Generator:
    folder.mkdir(exist_ok=True)
    opened = Generator.open(float32(generator))
    learned = learn_style(opened, real, settings, "float32", folder)
    write_style(folder, style_of(settings, real.class_names), learned)
    return opened


def learn_and_write_adapter(
    generator: Path, real: ImageSet, folder: Path, settings: Adapt = ADAPT
) -> Generator:
    """A LoRA learned under visual guidance by vectors of ones."""
    folder.mkdir(exist_ok=True)
    opened = Generator.open(float32(generator))
    images = training_images(opened, real, vectors=np.ones((len(real), 32), np.float32))
    learn_adapter(opened, images, settings, "float32", folder)
    write_adapter(folder, opened.pipeline, lora_shape(opened, settings), "")
    return opened


def assert_same_layers(adapter: Path, denoiser: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A stock denoiser has loaded every weight of an adapter's file, which are returned by name."""
    written = load_file(adapter / "pytorch_lora_weights.safetensors")
    state = denoiser.state_dict()
    loaded = {name: weight for name, weight in state.items() if "lora_" in name}
    assert len(written) == len(loaded)
    sums = [
        sorted(float(weight.abs().sum()) for weight in weights.values())
        for weights in (written, loaded)
    ]
    assert sums[0] == sums[1]
    return written

"""Pictures of what an adapter makes while it learns."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from truelike.generator.family import Conditioning
from truelike.generator.generator import Generator
from truelike.generator.samplers import Sampling, draw_noise, image_rngs, make_sampler, sample
from truelike.imageset.writing import encode_png
from truelike.runtime.scratch import finished, is_first, write_finished

FOLDER = "previews"
HOW = Sampling(steps=20, guidance_scale=2.0)


@dataclass(frozen=True)
class Previews:
    """Every `every` steps, an image from pure noise for each of a few prompts, side by side in
    ``previews/step-00100.png``; the same noise every time.
    """

    generator: Generator
    conditioning: Conditioning
    empty: Conditioning
    latent_shape: torch.Size
    every: int
    folder: Path

    def after_step(self, done: int) -> None:
        """Make the preview that is due when `done` steps are taken, unless it is there."""
        file = self.folder / FOLDER / f"step-{done:05d}.png"
        if done % self.every or not is_first() or finished(file):
            return
        file.parent.mkdir(exist_ok=True)
        denoiser = self.generator.family.denoiser
        self.generator.place([denoiser, "vae"])
        with torch.autocast(self.generator.device.type, enabled=False):
            row = np.concatenate(list(self._pixels().numpy()), axis=1)
        self.generator.place([denoiser])
        write_finished(file, partial(Path.write_bytes, data=encode_png(row)))

    def _pixels(self) -> Tensor:
        states = self.conditioning["encoder_hidden_states"]
        rngs = image_rngs(range(len(states)))
        noise = draw_noise(rngs, self.latent_shape).to(states)
        sampler = make_sampler("unipc", self.generator.scheduler)
        latents = sample(self.generator, sampler, self.conditioning, self.empty, noise, rngs, HOW)
        with torch.inference_mode():
            return self.generator.to_pixels(latents)

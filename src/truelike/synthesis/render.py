"""Turns rows of a plan into images: prompt states, visual guidance, latent prior, sampling,
decoding.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch

from truelike.generator.conditioning import encode_prompts, guide
from truelike.generator.families import Conditioning, denoiser_of, family_of
from truelike.generator.pipeline import latents_of, pixels_of, use_class
from truelike.generator.samplers import draw_noise, make_generators, make_sampler, sample
from truelike.imageset.reading import ImageSet


@dataclass(frozen=True)
class Renderer:
    """A generator with its style and adapter, the real images, and (optional) a guidance vector for
    each of them.

    `class_lora_scale` is the weight of the class's own adapter, where classes have one.
    """

    pipeline: Any
    real: ImageSet
    vectors: np.ndarray | None
    class_lora_scale: float | None = None
    known: dict[str, Conditioning] = field(default_factory=dict)
    one_at_a_time: Lock = field(
        default_factory=Lock
    )  # tokenizers and open files bear no second thread

    def render_all(self, batches: Sequence[pd.DataFrame]) -> Iterator[np.ndarray]:
        """Render batches of a plan ahead of their use, in order: `render` of each.

        The CPU renders as many at once as torch has threads, each with one thread: small models
        leave most of several threads idle, and the bytes do not depend on the number of cores. On a
        GPU, and with an adapter per class, which the whole generator takes on, only the next batch
        is rendered while the last is used.
        """
        threads = torch.get_num_threads()
        workers = (
            threads if self.pipeline.device.type == "cpu" and self.class_lora_scale is None else 1
        )
        torch.set_num_threads(threads // workers)
        ahead: deque[Future[np.ndarray]] = deque()
        try:
            with ThreadPoolExecutor(workers) as pool:
                for batch in batches:
                    ahead.append(pool.submit(self.render, batch))
                    if len(ahead) > workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def render(self, rows: pd.DataFrame) -> np.ndarray:
        """Render one batch of a plan, uint8 (N, H, W, 3); the same rows give the same bytes.

        A row's image depends on the other rows of its batch by rounding only, so identity needs the
        whole batch. With an adapter per class the rows are sorted by class.
        """
        if self.class_lora_scale is None:
            return self._render(rows)
        images = []
        for label, group in rows.groupby("label"):
            use_class(self.pipeline, int(str(label)), self.class_lora_scale)
            images.append(self._render(group))
        return np.concatenate(images)

    def _render(self, rows: pd.DataFrame) -> np.ndarray:
        pipeline, settings = self.pipeline, rows.iloc[0]
        positions = pd.Index(self.real.index["key"]).get_indexer(rows["source_key"]).tolist()
        height, width = (
            int(self.real.index[side].iloc[0]) // pipeline.vae_scale_factor
            for side in ("height", "width")
        )
        with self.one_at_a_time:
            conditioning = encode_prompts(pipeline, rows["prompt"].tolist(), self.known)
            negative = encode_prompts(pipeline, [settings["negative_prompt"]], self.known)
            pixels = self.real.load(positions) if settings["strength"] < 1 else None
        if self.vectors is not None:
            conditioning = guide(conditioning, torch.from_numpy(self.vectors[positions]))
        generators = make_generators(rows["seed"].tolist())
        noise = draw_noise(generators, (denoiser_of(pipeline).config.in_channels, height, width))
        noise = noise.to(conditioning["encoder_hidden_states"])
        prior = None if pixels is None else latents_of(pipeline, torch.from_numpy(pixels)).to(noise)
        latents = sample(
            partial(family_of(pipeline).denoise, pipeline),
            make_sampler(settings["sampler"], pipeline.scheduler),
            conditioning,
            negative,
            noise,
            generators,
            steps=int(settings["steps"]),
            guidance_scale=float(settings["guidance_scale"]),
            guidance_interval=(float(settings["guidance_low"]), float(settings["guidance_high"])),
            prior=prior,
            strength=float(settings["strength"]),
        )
        return pixels_of(pipeline, latents).numpy()

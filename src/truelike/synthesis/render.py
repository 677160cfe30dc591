"""Turns rows of a plan into images: prompt states, visual guidance, latent prior, sampling,
decoding.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import numpy as np
import pandas as pd
import torch

from truelike.generator.family import Conditioning
from truelike.generator.feedback import Feedback
from truelike.generator.generator import Generator, image_size
from truelike.generator.guidance import guide
from truelike.generator.samplers import Sampling, draw_noise, image_rngs, make_sampler, sample
from truelike.generator.states import PromptStates, map_states
from truelike.imageset.reading import ImageSet
from truelike.synthesis.critic import Critic


@dataclass(frozen=True)
class Renderer:
    """A generator with its style and adapter, the real images, and (optional) a guidance vector for
    each of them.

    `class_lora_scale` is the weight of the class's own adapter, where classes have one; `critic` is
    the network of feedback, where that is on.
    """

    generator: Generator
    real: ImageSet
    vectors: np.ndarray | None
    class_lora_scale: float | None = None
    critic: Critic | None = None
    one_at_a_time: Lock = field(default_factory=Lock)  # open files are not thread-safe

    def render_all(self, batches: Sequence[pd.DataFrame]) -> Iterator[np.ndarray]:
        """Render batches of a plan ahead of their use, in order: `render` of each.

        The CPU renders as many at once as torch has threads, each with one thread: small models
        leave most of several threads idle, and the bytes do not depend on the number of cores. On a
        GPU, and with an adapter per class, which the whole generator takes on, only the next batch
        is rendered while the last is used.
        """
        parallel = not self.generator.on_gpu and self.class_lora_scale is None
        threads = torch.get_num_threads()
        workers = threads if parallel else 1
        states = self._encode(batches)
        torch.set_num_threads(threads // workers)
        ahead: deque[Future[np.ndarray]] = deque()
        try:
            with ThreadPoolExecutor(workers) as pool:
                for batch in batches:
                    ahead.append(pool.submit(self._render_classes, batch, states))
                    if len(ahead) > workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
        finally:
            torch.set_num_threads(threads)

    def render(self, rows: pd.DataFrame) -> np.ndarray:
        """Render one batch of a plan, uint8 (N, H, W, 3); the same rows give the same bytes.

        A row's image depends on the other rows of its batch by rounding only, so identity needs the
        whole batch. With an adapter per class the rows are sorted by class.
        """
        return next(self.render_all([rows]))

    def _encode(self, batches: Sequence[pd.DataFrame]) -> PromptStates:
        """The states of all prompts, made before the denoiser and the VAE come to the device."""
        prompts, negatives = list[str](), list[str]()
        for batch in batches:
            prompts += batch["prompt"].tolist()
            negatives += batch["negative_prompt"].tolist()
        self.generator.place(self.generator.encoders)
        states = map_states(self.generator, prompts, negatives)
        self.generator.place([self.generator.family.denoiser, "vae"])
        return states

    def _render_classes(self, rows: pd.DataFrame, states: PromptStates) -> np.ndarray:
        with torch.no_grad() if self.critic else torch.inference_mode():
            return self._render_all_classes(rows, states)

    def _render_all_classes(self, rows: pd.DataFrame, states: PromptStates) -> np.ndarray:
        if self.class_lora_scale is None:
            return self._render(rows, states)
        images = []
        for label, group in rows.groupby("label"):
            self.generator.use_class(int(str(label)), self.class_lora_scale)
            images.append(self._render(group, states))
        return np.concatenate(images)

    def _render(self, rows: pd.DataFrame, states: PromptStates) -> np.ndarray:
        settings = rows.iloc[0]
        how = Sampling(
            steps=int(settings["steps"]),
            guidance_scale=float(settings["guidance_scale"]),
            guidance_interval=(float(settings["guidance_low"]), float(settings["guidance_high"])),
            strength=float(settings["strength"]),
            feedback=self._feedback(rows),
        )
        positions = pd.Index(self.real.index["key"]).get_indexer(rows["source_key"]).tolist()
        conditioning = self._placed(states.of(rows["prompt"].tolist()))
        negative = self._placed(states.of([settings["negative_prompt"]], negative=True))
        if self.vectors is not None:
            conditioning = guide(conditioning, torch.from_numpy(self.vectors[positions]))
        rngs = image_rngs(rows["seed"].tolist())
        noise = draw_noise(rngs, self.generator.latent_shape(*image_size(self.real)))
        noise = noise.to(conditioning["encoder_hidden_states"])
        prior = None
        if how.strength < 1:
            with self.one_at_a_time:
                pixels = torch.from_numpy(self.real.load(positions))
            prior = self.generator.to_latents(pixels).to(noise)
        sampler = make_sampler(settings["sampler"], self.generator.scheduler)
        latents = sample(self.generator, sampler, conditioning, negative, noise, rngs, how, prior)
        return self.generator.to_pixels(latents).numpy()

    def _feedback(self, rows: pd.DataFrame) -> Feedback | None:
        """What the critic says of the images of these rows."""
        if self.critic is None:
            return None
        labels, settings = torch.tensor(rows["label"].tolist()), rows.iloc[0]
        return Feedback(
            partial(self.critic.of_latents, self.generator, labels),
            float(settings["feedback_weight"]),
            int(settings["feedback_every"]),
        )

    def _placed(self, conditioning: Conditioning) -> Conditioning:
        device = self.generator.device
        return {name: value.to(device) for name, value in conditioning.items()}

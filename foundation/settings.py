"""Typed reader of ``foundation/params.yaml``."""

from __future__ import annotations

import yaml
from pydantic import BaseModel, ConfigDict

from foundation import ROOT


class Section(BaseModel):
    """A strict, frozen section of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    package: str
    sha256: str


class Fashion(Section):
    seed: int
    pool_start: int  # train images from here on are the user's, those before it the corpus's
    train_per_class: int
    validation_per_class: int
    test_per_class: int


class Corpus(Section):
    seed: int
    variants: int  # renderings of each source image
    held_out: int  # source images kept for evaluation
    colour_weights: dict[str, float]  # 1 for colours not named
    ground_weights: dict[str, float]
    pattern_shares: tuple[float, float, float]  # plain, striped, dotted


class Training(Section):
    seed: int
    steps: int
    batch_size: int
    learning_rate: float


class Generator(Training):
    caption_dropout: float
    snr_gamma: float
    ema_decay: float
    hold: float  # share of the steps at the full learning rate, before it decays


class Evaluation(Section):
    seed: int
    prompts: int  # samples drawn for each prompt measure
    guidance_scale: float
    sampling_steps: int
    codec_seeds: int  # classifiers trained on real images, and as many on decoded ones


class Settings(Section):
    source: Source
    fashion: Fashion
    corpus: Corpus
    vae: Training
    encoder: Training
    image_tower: Training
    captioner: Training
    generator: Generator
    backbone: Training
    judge: Training
    evaluation: Evaluation

    @classmethod
    def load(cls) -> Settings:
        return cls.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text()))

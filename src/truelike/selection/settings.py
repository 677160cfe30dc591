"""The section `select` of params.yaml."""

from typing import Literal

from truelike.runtime.settings import Positive, Probability, Section, Seed


class Select(Section):
    sets: tuple[Literal["synthetic", "naive"], ...]
    min_class_probability: Probability
    drop_near_copies: bool
    relabel: bool
    classifier_steps: Positive
    seed: Seed

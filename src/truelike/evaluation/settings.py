"""The section `evaluate` of params.yaml."""

from truelike.runtime.settings import Fraction, Resamples, Section, Seed


class Evaluate(Section):
    confidence: Fraction
    bootstrap: Resamples
    seed: Seed

"""The section `evaluate` of params.yaml."""

from truelike.runtime.settings import Count, Fraction, Resamples, Section


class Evaluate(Section):
    confidence: Fraction
    bootstrap: Resamples
    seed: Count

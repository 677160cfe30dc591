"""The section `evaluate` of params.yaml."""

from truelike.runtime.settings import Count, Fraction, Positive, Section


class Evaluate(Section):
    confidence: Fraction
    bootstrap: Positive
    seed: Count

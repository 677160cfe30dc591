"""The section `audit` of params.yaml."""

from truelike.runtime.settings import Positive, Probability, Resamples, Section, Seed


class Gates(Section):
    """Limits whose breach fails the pipeline after the report is written; None for none."""

    max_near_copy_rate: Probability | None
    max_tpr: Probability | None
    min_coverage: Probability | None
    min_gain: float | None


class Audit(Section):
    neighbours: Positive
    batch_size: Positive
    bootstrap: Resamples
    seed: Seed
    gates: Gates

"""All measures of one sample of images against the real reference images."""

from collections.abc import Iterator

import numpy as np

from truelike.audit.appearance import standardised_differences
from truelike.audit.coverage import manifold_metrics
from truelike.audit.diversity import vendi_score
from truelike.audit.estimates import Estimate, Resamples, average
from truelike.audit.fidelity import (
    frechet_distance,
    kernel_distance,
    median_distance,
    polynomial,
    rbf,
)
from truelike.audit.probes import FOLDS, fit_probe, leep, probe_probabilities, two_sample_hits
from truelike.audit.samples import Features
from truelike.evaluation.intervals import class_resamples, recentred

DISTRIBUTION = ("frechet", "kernel", "kernel_rbf", "vendi")
MANIFOLD = ("precision", "density", "recall", "coverage")


def set_measures(
    reference: Features,
    sample: Features,
    whole_set: Features,
    neighbours: int,
    resamples: Resamples,
    rng: np.random.Generator,
) -> dict[str, Estimate | None]:
    """Measure a `sample` of the set `whole_set` against as many reference images.

    None for a measure that needs more images than there are.
    """
    real, fake = reference.values, sample.values
    measures: dict[str, Estimate | None] = dict.fromkeys(MANIFOLD)
    measures |= _distribution_estimates(real, fake, resamples)
    if len(real) > neighbours:
        measures |= _manifold_estimates(real, fake, neighbours, resamples)
    measures["two_sample"] = None
    if len(real) >= FOLDS:
        hits = two_sample_hits(real, fake, seed=int(rng.integers(2**31)))
        measures["two_sample"] = average(hits, np.concatenate(resamples, axis=1))
    measures |= _appearance(reference, sample, resamples)
    return measures | _probe_estimates(reference, sample, whole_set, resamples, rng)


def class_measures(
    reference: Features,
    sample: Features,
    class_names: list[str],
    neighbours: int,
    resamples: Resamples,
    seed: int,
) -> Iterator[tuple[str, str, Estimate | float | None]]:
    """(class name, measure, its number) within each class, None where it has too few images."""
    for label, class_name in enumerate(class_names):
        chosen = [features.labels == label for features in (reference, sample)]
        real, fake = reference.values[chosen[0]], sample.values[chosen[1]]
        counts = resamples[0][:, chosen[0]], resamples[1][:, chosen[1]]
        measures: dict[str, Estimate | float | None] = dict.fromkeys(
            (*DISTRIBUTION, *MANIFOLD, "two_sample")
        )
        if len(real) > neighbours:
            for name, value in _distribution(real, fake).items():
                measures[name] = float(value)
            measures |= _manifold_estimates(real, fake, neighbours, counts)
        if len(real) >= FOLDS:
            hits = two_sample_hits(real, fake, seed)
            measures["two_sample"] = average(hits, np.concatenate(counts, axis=1))
        yield from ((class_name, name, value) for name, value in measures.items())


def _manifold_estimates(
    real: np.ndarray, fake: np.ndarray, neighbours: int, resamples: Resamples
) -> dict[str, Estimate]:
    """Precision, density, recall and coverage, resampled over the images that each is about.

    Neighbourhoods stay as they are: with images drawn anew some would repeat, which lowers coverage
    and shrinks balls.
    """
    about_real = ("recall", "coverage")
    return {
        name: average(values, resamples[0 if name in about_real else 1])
        for name, values in manifold_metrics(real, fake, neighbours).items()
    }


def _distribution(
    real: np.ndarray, fake: np.ndarray, resamples: Resamples | None = None
) -> dict[str, np.ndarray]:
    """The measures of DISTRIBUTION: scalars, or of shape (B,) with resamples."""
    gaussian = rbf(median_distance(real))
    return {
        "frechet": frechet_distance(real, fake, resamples),
        "kernel": kernel_distance(real, fake, polynomial, resamples),
        "kernel_rbf": kernel_distance(real, fake, gaussian, resamples),
        "vendi": vendi_score(fake, resamples and resamples[1]),
    }


def _distribution_estimates(
    real: np.ndarray, fake: np.ndarray, resamples: Resamples
) -> dict[str, Estimate | None]:
    if len(real) < 2:
        return dict.fromkeys(DISTRIBUTION)
    values, draws = _distribution(real, fake), _distribution(real, fake, resamples)
    return {
        name: Estimate(float(value), recentred(float(value), draws[name]))
        for name, value in values.items()
    }


def _appearance(
    reference: Features, sample: Features, resamples: Resamples
) -> dict[str, Estimate | None]:
    """The mean size of the standardised differences of low-level statistics."""
    real, fake = reference.low_level, sample.low_level
    once = np.ones((1, len(real))), np.ones((1, len(fake)))
    value, draws = (
        np.abs(standardised_differences(real, fake, counts)).mean(1) for counts in (once, resamples)
    )
    return {"low_level_difference": Estimate(float(value[0]), recentred(float(value[0]), draws))}


def _probe_estimates(
    reference: Features,
    sample: Features,
    whole_set: Features,
    resamples: Resamples,
    rng: np.random.Generator,
) -> dict[str, Estimate | None]:
    """Train on real, test on the set (`label_error`), and the other way round (`probe_accuracy`,
    `leep`): of the classes that both samples have, None where that is one alone.
    """
    present = np.unique(reference.labels)
    if len(present) < 2:
        return dict.fromkeys(("label_error", "probe_accuracy", "leep"))
    whole_set = whole_set.take(np.flatnonzero(np.isin(whole_set.labels, present)))
    classes = int(present[-1]) + 1
    on_real = fit_probe(reference.values, reference.labels)
    errors = on_real.predict(whole_set.values) != whole_set.labels
    on_sample = fit_probe(sample.values, sample.labels)
    probabilities = probe_probabilities(on_sample, reference.values, classes)
    hits = probabilities.argmax(1) == reference.labels
    value = leep(probabilities, reference.labels)
    draws = []
    for counts in resamples[0]:
        rows = np.repeat(np.arange(len(hits)), counts.astype(int))
        draws.append(leep(probabilities[rows], reference.labels[rows]))
    return {
        "label_error": average(errors, class_resamples(whole_set.labels, len(draws), rng)),
        "probe_accuracy": average(100 * hits, resamples[0]),
        "leep": Estimate(value, recentred(value, np.array(draws))),
    }

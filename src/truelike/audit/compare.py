"""All measures of one sample of images against the real reference images, each with its bootstrap
resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from truelike.audit.appearance import standardised_differences
from truelike.audit.fidelity import frechet_distance, manifold_metrics, vendi_score
from truelike.audit.kernel import kernel_distance, median_distance, polynomial, rbf
from truelike.audit.probe import FOLDS, fit_probe, probe_probabilities, two_sample_hits
from truelike.audit.transfer import leep
from truelike.evaluation.intervals import Interval, class_resamples, percentile_interval, recentred

CONFIDENCE = 0.95
Resamples = tuple[
    np.ndarray, np.ndarray
]  # how often each reference and each other image counts, (B, N) and (B, M)


@dataclass(frozen=True)
class Features:
    """Some images: keys, labels (N,), encoder features `values` (N, D) and `low_level` statistics
    (N, S).
    """

    keys: list[str]
    labels: np.ndarray
    values: np.ndarray
    low_level: np.ndarray

    def take(self, positions: np.ndarray) -> "Features":
        """The images at these positions, in this order."""
        keys = [self.keys[position] for position in positions]
        return Features(
            keys, self.labels[positions], self.values[positions], self.low_level[positions]
        )


@dataclass(frozen=True)
class Measure:
    """A number and what it is in each of B resamples of the images, shape (B,)."""

    value: float
    draws: np.ndarray


def to_interval(measure: Measure | None) -> Interval | None:
    """The 95 % interval of a measure."""
    return (
        None if measure is None else percentile_interval(measure.value, measure.draws, CONFIDENCE)
    )


def compare(
    reference: Features,
    sample: Features,
    everything: Features,
    neighbours: int,
    resamples: Resamples,
    rng: np.random.Generator,
) -> dict[str, Measure | None]:
    """Measure a `sample` of a set against as many reference images; `everything` is the whole set.

    None for a measure that needs more images than there are.
    """
    real, fake = reference.values, sample.values
    found: dict[str, Measure | None] = dict.fromkeys(("precision", "density", "recall", "coverage"))
    found |= _distances(real, fake, resamples)
    if len(real) > neighbours:
        found |= {
            name: average(*pair)
            for name, pair in _manifold(real, fake, neighbours, resamples).items()
        }
    found["two_sample"] = None
    if len(real) >= FOLDS:
        hits = two_sample_hits(real, fake, seed=int(rng.integers(2**31)))
        found["two_sample"] = average(hits, np.concatenate(resamples, axis=1))
    return (
        found
        | _appearance(reference, sample, resamples)
        | _probes(reference, sample, everything, resamples, rng)
    )


def class_measures(
    reference: Features,
    sample: Features,
    class_names: list[str],
    neighbours: int,
    resamples: Resamples,
    seed: int,
) -> Iterator[tuple[str, str, Interval | float | None]]:
    """(class name, measure, its interval or value) within each class, None where it has too few
    images.
    """
    for label, class_name in enumerate(class_names):
        chosen = [features.labels == label for features in (reference, sample)]
        real, fake = reference.values[chosen[0]], sample.values[chosen[1]]
        counts = resamples[0][:, chosen[0]], resamples[1][:, chosen[1]]
        found: dict[str, Interval | float | None] = dict.fromkeys(
            (
                "frechet",
                "kernel",
                "kernel_rbf",
                "vendi",
                "precision",
                "density",
                "recall",
                "coverage",
                "two_sample",
            )
        )
        if len(real) > neighbours:
            found |= {name: float(value) for name, value in _values(real, fake).items()}
            found |= {
                n: to_interval(average(*pair))
                for n, pair in _manifold(real, fake, neighbours, counts).items()
            }
        if len(real) >= FOLDS:
            hits = two_sample_hits(real, fake, seed)
            found["two_sample"] = to_interval(average(hits, np.concatenate(counts, axis=1)))
        yield from ((class_name, name, value) for name, value in found.items())


def average(values: np.ndarray, counts: np.ndarray) -> Measure:
    """The mean of a number per image (N,), with its means over resamples of the images (B, N)."""
    return Measure(float(values.mean()), counts @ values.astype(np.float64) / counts.sum(1))


def _manifold(
    real: np.ndarray, fake: np.ndarray, neighbours: int, resamples: Resamples
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The manifold metrics' numbers per image, each with the resamples of the images it is about.

    Neighbourhoods stay as they are: with images drawn anew some would repeat, which lowers coverage
    and shrinks balls.
    """
    about_real = ("recall", "coverage")
    metrics = manifold_metrics(real, fake, neighbours)
    return {
        name: (values, resamples[0 if name in about_real else 1])
        for name, values in metrics.items()
    }


def _values(
    real: np.ndarray, fake: np.ndarray, resamples: Resamples | None = None
) -> dict[str, np.ndarray]:
    gaussian = rbf(median_distance(real))
    return {
        "frechet": frechet_distance(real, fake, resamples),
        "kernel": kernel_distance(real, fake, polynomial, resamples),
        "kernel_rbf": kernel_distance(real, fake, gaussian, resamples),
        "vendi": vendi_score(fake, resamples and resamples[1]),
    }


def _distances(
    real: np.ndarray, fake: np.ndarray, resamples: Resamples
) -> dict[str, Measure | None]:
    if len(real) < 2:
        return dict.fromkeys(("frechet", "kernel", "kernel_rbf", "vendi"))
    values, draws = _values(real, fake), _values(real, fake, resamples)
    return {
        name: Measure(float(value), recentred(float(value), draws[name]))
        for name, value in values.items()
    }


def _appearance(
    reference: Features, sample: Features, resamples: Resamples
) -> dict[str, Measure | None]:
    """The mean size of the standardised differences of low-level statistics."""
    real, fake = reference.low_level, sample.low_level
    whole = np.ones((1, len(real))), np.ones((1, len(fake)))
    value, draws = (
        np.abs(standardised_differences(real, fake, counts)).mean(1)
        for counts in (whole, resamples)
    )
    return {"low_level_difference": Measure(float(value[0]), recentred(float(value[0]), draws))}


def _probes(
    reference: Features,
    sample: Features,
    everything: Features,
    resamples: Resamples,
    rng: np.random.Generator,
) -> dict[str, Measure | None]:
    """Train on real, test on the set (`label_error`), and the other way round (`probe_accuracy`,
    `leep`).
    """
    classes = int(reference.labels.max()) + 1
    judged = (
        fit_probe(reference.values, reference.labels).predict(everything.values)
        != everything.labels
    )
    learned = fit_probe(sample.values, sample.labels)
    probabilities = probe_probabilities(learned, reference.values, classes)
    right = probabilities.argmax(1) == reference.labels
    drawn = [np.repeat(np.arange(len(right)), counts.astype(int)) for counts in resamples[0]]
    value = leep(probabilities, reference.labels)
    leeps = np.array([leep(probabilities[rows], reference.labels[rows]) for rows in drawn])
    return {
        "label_error": average(judged, class_resamples(everything.labels, len(leeps), rng)),
        "probe_accuracy": average(100 * right, resamples[0]),
        "leep": Measure(value, recentred(value, leeps)),
    }

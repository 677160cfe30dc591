"""Linear probes, logistic regressions on frozen features, and what they tell: the classifier
two-sample test (C2ST), accuracy from few images, and transfer (LEEP).
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTY = 0.1  # scikit-learn's C
FOLDS = 5


def fit_probe(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Fit a probe on features (N, D), which it standardises, and labels (N,); its
    ``predict_proba`` has a column per label that occurs, in order.
    """
    return make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000)).fit(
        features, labels
    )


def probe_probabilities(probe: Pipeline, features: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of all classes (N, K); 0 for a class that the probe was not fitted on."""
    probabilities = np.zeros((len(features), classes))
    probabilities[:, probe.classes_] = probe.predict_proba(features)
    return probabilities


def two_sample_hits(real: np.ndarray, fake: np.ndarray, seed: int) -> np.ndarray:
    """Whether a probe that was not fitted on an image predicts the right sample: bool (N_real +
    N_fake,), real ones first.

    The classifier two-sample test (C2ST) of Lopez-Paz and Oquab (ICLR 2017) in 5 folds: the mean
    is 0.5 at equal sizes if both are of one distribution, 1 if they can be separated. Both samples
    need at least 5 images.
    """
    features = np.concatenate([real, fake])
    origin = np.repeat([0, 1], [len(real), len(fake)])
    hits = np.empty(len(features), bool)
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
        features, origin
    ):
        hits[test] = (
            fit_probe(features[train], origin[train]).predict(features[test]) == origin[test]
        )
    return hits


def few_shot_hits(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    sizes: list[int],
    repeats: int,
    seed: int,
) -> np.ndarray:
    """100 where a probe fitted on `size` images per class is right, else 0: float32 of shape
    (sizes, repeats, N_test).

    `train` and `test` are features and labels. Each repeat draws an order of the training images;
    larger sizes add images to the smaller ones. Classes with fewer images give all they have.
    """
    features, labels = train
    rng = np.random.default_rng(seed)
    hits = np.empty((len(sizes), repeats, len(test[1])), np.float32)
    for repeat in range(repeats):
        order = rng.permutation(len(labels))
        rank = np.empty(len(labels), int)
        for label in np.unique(labels):
            rank[order[labels[order] == label]] = np.arange((labels == label).sum())
        for place, size in enumerate(sizes):
            probe = fit_probe(features[rank < size], labels[rank < size])
            hits[place, repeat] = 100 * (probe.predict(test[0]) == test[1])
    return hits


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Log expected empirical prediction of labels (N,) from a source classifier's `probabilities`
    (N, Z); at most 0.

    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability", ICML 2020, equation 2: P(y, z)
    = 1/N sum_{i: y_i = y} p_iz, LEEP = 1/N sum_i log sum_z P(y_i | z) p_iz. Closer to 0 is better.
    """
    joint = np.zeros((labels.max() + 1, probabilities.shape[1]))
    np.add.at(joint, labels, probabilities / len(labels))
    source = joint.sum(0)
    conditional = joint / np.where(source > 0, source, 1)
    return float(np.log((conditional[labels] * probabilities).sum(1)).mean())

"""How well a classifier of one data set should transfer to another, without training on it."""

import numpy as np


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

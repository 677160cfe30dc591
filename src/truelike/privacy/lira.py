"""Membership inference: how well can an attacker tell which images a network, or its generator, was
trained on?

Shadow networks come in pairs (2j, 2j + 1) that were trained on complementary halves of the same
images, so that every image was seen by exactly half of them. Arrays of shape (S, N) have a row per
shadow and a column per image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import auc, roc_curve

from truelike.evaluation.intervals import class_resamples, percentile_interval

FALSE_POSITIVE_RATES = {"tpr_at_1_in_1000": 0.001, "tpr_at_1_in_100": 0.01}
CONFIDENCE = 0.95
NO_CURVES = pd.DataFrame({"arm": [""], "attack": [""], "fpr": [0.0], "tpr": [0.0]})[:0]


def logit_confidence(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """phi = log(p_y / (1 - p_y)) of class probabilities (N, K): float64 of shape (N,).

    Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, section IV.C; 1
    - p_y is the sum of the other classes, exact where p_y is near 1.
    """
    floor = np.finfo(np.float32).tiny
    others = probs.astype(np.float64)
    rows = np.arange(len(labels))
    true_class = others[rows, labels].copy()
    others[rows, labels] = 0
    return np.log(np.maximum(true_class, floor)) - np.log(np.maximum(others.sum(1), floor))


def lira_online(target: np.ndarray, shadows: np.ndarray, member: np.ndarray) -> np.ndarray:
    """log N(phi; mu_in, sigma_in^2) - log N(phi; mu_out, sigma_out^2) per image: float64 of shape
    (N,).

    `target` (N,) holds the attacked network's logit confidences, `shadows` (S, N) the shadows',
    `member` (S, N) which of them were trained on which image. Means are per image, variances one
    for all images, as Carlini et al. (S&P 2022, section VI.A) advise for few shadows.
    """
    inside, outside = _gaussian(shadows, member), _gaussian(shadows, ~member)
    return _log_density(target, *inside) - _log_density(target, *outside)


def lira_offline(target: np.ndarray, shadows: np.ndarray, member: np.ndarray) -> np.ndarray:
    """(phi - mu_out) / sigma_out per image, from shadows that were not trained on it: float64 of
    shape (N,).

    Carlini et al. (S&P 2022, equation 4) take the normal probability below phi, which has the same
    order but becomes 1 for all the surest images.
    """
    mean, variance = _gaussian(shadows, ~member)
    return (target - mean) / np.sqrt(variance)


def _gaussian(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean per column (N,) and pooled variance within columns of the `chosen` values; each column
    has two or more.
    """
    counts = chosen.sum(0)
    means = np.where(chosen, values, 0).sum(0) / counts
    return means, float((np.where(chosen, values - means, 0) ** 2).sum() / (counts - 1).sum())


def _log_density(values: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    return -0.5 * ((values - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def attack_scores(
    logits: np.ndarray, member: np.ndarray, pairs: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores (S, N) by name of attack when every shadow in turn is attacked by those of the other
    pairs.

    `pairs` (S,) numbers the pairs, three at least. The attacked shadow's complement is left out as
    well: without it the attacker has as many shadows with as without each image, and nothing but
    the network's answer can separate them. `threshold` is the confidence in the label itself, the
    same for all images (CiP).
    """
    scores = {
        "lira_online": np.empty_like(logits),
        "lira_offline": np.empty_like(logits),
        "threshold": logits,
    }
    for row in range(len(logits)):
        others = pairs != pairs[row]
        scores["lira_online"][row] = lira_online(logits[row], logits[others], member[others])
        scores["lira_offline"][row] = lira_offline(logits[row], logits[others], member[others])
    return scores


def roc(
    scores: np.ndarray, member: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates and their thresholds, the strictest first: float64 (T + 1,)
    each, rates from 0 to 1.

    `scores`, `member` (bool) and `weights` have shape (M,); equal scores share a threshold.
    """
    return roc_curve(member, scores, sample_weight=weights, drop_intermediate=False)


def tpr_at(fpr: np.ndarray, tpr: np.ndarray, limit: float) -> float:
    """The largest true positive rate at a threshold whose false positive rate is at most
    `limit`.
    """
    return float(tpr[np.searchsorted(fpr, limit, side="right") - 1])


def best_threshold(scores: np.ndarray, member: np.ndarray) -> float:
    """The smallest score that is called a member for the largest TPR - FPR of these trials
    (M,).
    """
    fpr, tpr, thresholds = roc(scores, member)
    return float(thresholds[np.argmax(tpr - fpr)])


def calls(scores: np.ndarray, member: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Which images an attacker calls members (S, N), by the threshold that is best on the shadows
    of the other pairs (ours).

    A threshold chosen on the trials it is judged by would have a balanced accuracy above 0.5 by
    chance.
    """
    thresholds = [
        best_threshold(scores[pairs != pair].ravel(), member[pairs != pair].ravel())
        for pair in pairs
    ]
    return scores >= np.array(thresholds)[:, None]


def balanced_accuracy(called: np.ndarray, member: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the share of members called so and that of non-members not called so; arrays of shape
    (M,).
    """
    true_positives = np.average(called[member], weights=weights[member])
    true_negatives = np.average(~called[~member], weights=weights[~member])
    return float((true_positives + true_negatives) / 2)


def measure(
    scores: np.ndarray,
    member: np.ndarray,
    labels: np.ndarray,
    pairs: np.ndarray,
    draws: int,
    seed: int,
) -> dict[str, dict[str, float] | None]:
    """AUC, TPR at fixed FPR and balanced accuracy of an attack, each as ``value``, ``low``,
    ``high`` (95 %), 0 to 1.

    Images are drawn anew with replacement, each with all its trials, as a member and not, so that
    these stay paired; the shadows are not. A TPR is None where one false positive is a larger share
    of the non-members than its FPR.
    """
    resolved = {
        name: limit for name, limit in FALSE_POSITIVE_RATES.items() if limit * (~member).sum() >= 1
    }
    order = np.argsort(-scores.ravel(), kind="stable")  # sorted input is fast in every draw
    ranked, inside = scores.ravel()[order], member.ravel()[order]
    called = calls(scores, member, pairs).ravel()[order]
    images = np.tile(np.arange(scores.shape[1]), len(scores))[order]

    def numbers(counts: np.ndarray) -> dict[str, float]:
        weights = counts[images]
        fpr, tpr, _ = roc(ranked, inside, weights)
        rates = {name: tpr_at(fpr, tpr, limit) for name, limit in resolved.items()}
        balanced = balanced_accuracy(called, inside, weights)
        return {"auc": float(auc(fpr, tpr))} | rates | {"balanced_accuracy": balanced}

    value = numbers(np.ones(len(labels)))
    resampled = [
        numbers(counts) for counts in class_resamples(labels, draws, np.random.default_rng(seed))
    ]
    intervals = {
        name: percentile_interval(
            value[name], np.array([draw[name] for draw in resampled]), CONFIDENCE
        )
        for name in value
    }
    names = ["auc", *FALSE_POSITIVE_RATES, "balanced_accuracy"]
    return {
        name: {key: round(number, 4) for key, number in vars(intervals[name]).items()}
        if name in intervals
        else None
        for name in names
    }


def infer(
    shadows: Sequence[pd.DataFrame], halves: pd.DataFrame, draws: int, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Attack every arm of every shadow: the content of metrics/privacy.json, and rows of arm,
    attack, fpr, tpr.

    A table per shadow with the columns arm, shadow, key, label, logit, a row for every arm and
    image; `halves` (shadow, key) says who was trained on what. `trials` counts the non-members of
    all shadows together.
    """
    sizes = {"shadows": len(shadows), "images": 0, "trials": 0}
    if not shadows:
        return sizes | {"arms": {}}, NO_CURVES
    arms: dict[str, Any] = {}
    curves = []
    for arm, rows in pd.concat(shadows).groupby("arm", sort=False):
        table = rows.pivot(index="shadow", columns="key", values="logit")
        labels = rows.drop_duplicates("key").set_index("key")["label"].loc[table.columns].to_numpy()
        member = np.array(
            [
                table.columns.isin(halves["key"][halves["shadow"] == shadow])
                for shadow in table.index
            ]
        )
        pairs = table.index.to_numpy() // 2
        attacks = attack_scores(table.to_numpy(), member, pairs)
        arms[str(arm)] = {
            name: measure(scores, member, labels, pairs, draws, seed)
            for name, scores in attacks.items()
        }
        for name, scores in attacks.items():
            fpr, tpr, _ = roc(scores.ravel(), member.ravel())
            curves.append(pd.DataFrame({"arm": arm, "attack": name, "fpr": fpr, "tpr": tpr}))
        sizes |= {"images": len(labels), "trials": int((~member).sum())}
    return sizes | {"arms": arms}, pd.concat(curves, ignore_index=True)

"""Accuracy and calibration of class probabilities `probs` (N, K) against `labels` (N,); accuracies
in percent.
"""

import numpy as np
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

BINS = 15


def correct(probs: np.ndarray, labels: np.ndarray, top: int = 1) -> np.ndarray:
    """Which images have their class among the `top` most probable ones: bool of shape (N,)."""
    best = np.argsort(-probs, axis=1, kind="stable")[:, :top]
    return (best == labels[:, None]).any(1)


def class_accuracy(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Top-1 accuracy of each class in percent, float64 of shape (K,); NaN for a class without
    images.
    """
    hits = np.bincount(labels[correct(probs, labels)], minlength=probs.shape[1])
    counts = np.bincount(labels, minlength=probs.shape[1])
    return np.where(counts > 0, 100 * hits / np.maximum(counts, 1), np.nan)


def confusion_matrix(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each class (row) is taken for each class (column): int64 of shape (K, K)."""
    return sklearn_confusion_matrix(labels, probs.argmax(1), labels=range(probs.shape[1]))


def negative_log_likelihood(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log p(label), natural logarithm, probabilities clipped at the smallest float32."""
    chosen = probs[np.arange(len(labels)), labels]
    return float(
        -np.log(np.clip(chosen.astype(np.float64), np.finfo(np.float32).tiny, None)).mean()
    )


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """sum_b n_b / N |accuracy_b - confidence_b| over 15 equal bins of confidence (Guo et al., ICML
    2017, eq. 3).
    """
    confidence = probs.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, correct(probs, labels) - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(labels))


def scores(probs: np.ndarray, labels: np.ndarray, class_names: list[str]) -> dict[str, float]:
    """All of the above by name: top1, top5, balanced, nll, ece and ``class:NAME``."""
    per_class = class_accuracy(probs, labels)
    return {
        "top1": 100 * float(correct(probs, labels).mean()),
        "top5": 100 * float(correct(probs, labels, top=5).mean()),
        "balanced": float(np.nanmean(per_class)),
        "nll": negative_log_likelihood(probs, labels),
        "ece": expected_calibration_error(probs, labels),
    } | {f"class:{name}": float(value) for name, value in zip(class_names, per_class, strict=True)}

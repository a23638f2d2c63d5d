"""Figures of merit, each with its n and, for shares, its Wilson interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge.types import F32

Z: Final = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927, JASA 22:209); (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    p, zz = hits / n, Z * Z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = Z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # The formula gives -1e-19 where it means 0.
    return max(0.0, middle - half), min(1.0, middle + half)


def share(right: NDArray[np.bool_]) -> dict[str, Any]:
    """`accuracy`, `low`, `high` (95 % Wilson) and `n` of a row of hits and misses."""
    hits, n = int(right.sum()), len(right)
    low, high = wilson(hits, n)
    return {"accuracy": round(hits / n, 5) if n else None, "low": round(low, 5), "high": round(high, 5), "n": n}


def photos(right: NDArray[np.bool_], photo: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """`share` of photographs, each told by the majority of its crops: crops of one are no independent trials."""
    return share(np.array([right[photo == number].mean() > 0.5 for number in np.unique(photo)]))


def confusion(
    truth: NDArray[np.integer[Any]], answer: NDArray[np.integer[Any]], rows: int, columns: int
) -> list[list[int]]:
    """Counts, rows true and columns answered."""
    table = np.zeros((rows, columns), np.int64)
    np.add.at(table, (truth.astype(np.int64), answer.astype(np.int64)), 1)
    counts: list[list[int]] = table.tolist()
    return counts


def per_class(table: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, specificity and n of each class of a square confusion table; 0 where undefined."""
    counts = np.array(table, dtype=np.float64)
    total = counts.sum()
    out: dict[str, dict[str, float]] = {}
    for k, name in enumerate(names):
        hit, said, real = counts[k, k], counts[:, k].sum(), counts[k].sum()
        precision = hit / said if said else 0.0
        recall = hit / real if real else 0.0
        others = total - real
        out[name] = {
            "precision": round(float(precision), 4),
            "recall": round(float(recall), 4),
            "f1": round(float(2 * precision * recall / (precision + recall)) if hit else 0.0, 4),
            "specificity": round(float((others - (said - hit)) / others) if others else 0.0, 4),
            "n": int(real),
        }
    return out


def calibration_error(probabilities: F32, truth: NDArray[np.integer[Any]], bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of the top probability (Guo et al. 2017, arXiv:1706.04599).

    Args:
        probabilities: float (N, K).
        truth: (N,) class numbers.
        bins: number of bins.

    """
    error = sum(
        abs(float(b["confidence"]) - float(b["accuracy"])) * b["n"] for b in reliability(probabilities, truth, bins)
    )
    return round(error / max(len(truth), 1), 5)


def reliability(probabilities: F32, truth: NDArray[np.integer[Any]], bins: int = 15) -> list[dict[str, float]]:
    """Mean confidence, accuracy and n of each bin of the top probability that holds anything."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((top * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(top[place == b].mean()),
            "accuracy": float(right[place == b].mean()),
            "n": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def classifier(probabilities: F32, truth: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, Any]:
    """Everything reported of one classifier on one set: float (N, K) answers against (N,) class numbers."""
    answer = probabilities.argmax(axis=1)
    table = confusion(truth, answer, len(names), len(names))
    classes = per_class(table, names)
    return {
        **share(answer == truth),
        "macro_f1": round(sum(c["f1"] for c in classes.values()) / len(names), 5),
        "ece": calibration_error(probabilities, truth),
        "classes": classes,
        "confusion": table,
        "reliability": reliability(probabilities, truth),
    }


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p that two classifiers err alike on the same images (McNemar 1947)."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    tail = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)


def paired_loss(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    """Points of accuracy lost between two sets of answers to the same images.

    The interval is Wald's for matched pairs with half a count added to each cell (Agresti and Min 2005, Statistics in
    Medicine 24:729).

    Args:
        before: (N,) hits and misses.
        after: (N,) hits and misses on the same images, changed in some way.

    Returns:
        `loss_points`, None when N is 0; `loss_low` and `loss_high`, its 95 % interval; `mcnemar_p`.

    """
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    n = len(before)
    middle = (lost - won) / (n + 2)
    half = Z * math.sqrt(max(0.0, lost + won + 1 - (lost - won) ** 2 / (n + 2))) / (n + 2)
    return {
        "loss_points": round(100 * (lost - won) / n, 2) if n else None,
        "loss_low": round(100 * (middle - half), 2),
        "loss_high": round(100 * (middle + half), 2),
        "mcnemar_p": round(mcnemar(before, after), 4),
    }


def fit_temperature(logits: F32, truth: NDArray[np.integer[Any]]) -> float:
    """Temperature that minimises the negative log-likelihood (Guo et al. 2017), searched on a logarithmic grid."""
    best, lowest = 1.0, math.inf
    for temperature in np.exp(np.linspace(math.log(0.3), math.log(3.0), 461)):
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        loss = float(
            (np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth.astype(np.int64)]).mean()
        )
        if loss < lowest:
            best, lowest = float(temperature), loss
    return best


def uncertain_threshold(probabilities: F32, most: float = 0.1) -> float:
    """Largest multiple of 1/256 under which at most `most` of the top probabilities (N, K) lie."""
    top = np.round(probabilities.max(axis=1) * 256).astype(int)
    fits = [level for level in range(257) if float((top < level).mean()) <= most]
    return max(fits) / 256

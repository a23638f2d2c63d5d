"""What is reported of one expression model on one set of faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.types import EMOTIONS
from edge_quantize.datasets.fer2013 import FERPLUS_TO_EMOTION, Fer2013
from edge_quantize.evaluation import metrics
from edge_quantize.evaluation.groups import by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import F32
    from edge_quantize.masks.landmarks import Landmarks


def single_pictures(fer: Fer2013, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the rows show a picture that stands nowhere else in FER2013."""
    _, where, count = np.unique(fer.dup_group, return_inverse=True, return_counts=True)
    lonely: NDArray[np.bool_] = (count[where] == 1)[rows]
    return lonely


def ferplus_majority(votes: NDArray[np.int16]) -> NDArray[np.int64]:
    """Class with most FER+ votes of each row (N, 10), -1 where unknown, tied, or none of the seven."""
    order = np.array(FERPLUS_TO_EMOTION)
    best = np.sort(votes, axis=1)
    first = votes.argmax(axis=1)
    clear = (best[:, -1] > best[:, -2]) & (best[:, -1] > 0) & (first < len(order))
    return np.where(clear, order[np.minimum(first, len(order) - 1)], -1)


def expression(
    fer: Fer2013, rows: NDArray[np.int64], probabilities: F32, threshold: float, marks: Landmarks | None = None
) -> dict[str, Any]:
    """Everything reported of one expression model on one set."""
    truth = fer.labels[rows].astype(np.int64)
    said = probabilities.argmax(axis=1)
    right = said == truth
    out = metrics.classifier(probabilities, truth, EMOTIONS)
    out["without_duplicates"] = metrics.share(right[single_pictures(fer, rows)])
    second = ferplus_majority(fer.votes[rows])
    out["ferplus"] = metrics.share((said == second)[second >= 0])
    out |= by_group(fer.images[rows], marks, rows, right)
    in_b = np.isin(rows, fer.public_halves()[1])
    sure = probabilities[in_b].max(axis=1) >= threshold
    out["half_b"] = {
        **metrics.share(right[in_b]),
        "ece": metrics.calibration_error(probabilities[in_b], truth[in_b]),
        "uncertain_share": round(float(1 - sure.mean()), 4),
        "accuracy_where_sure": metrics.share(right[in_b][sure]),
    }
    cells = np.where(probabilities.max(axis=1) < threshold, len(EMOTIONS), said)
    out["confusion_with_uncertain"] = metrics.confusion(truth, cells, len(EMOTIONS), len(EMOTIONS) + 1)
    return out


def happy_bias(table: list[list[int]], shares: tuple[float, ...] = (0.05, 0.15, 0.25, 0.5, 0.75)) -> dict[str, float]:
    """What share of happy faces is read at several true shares, the other classes as they stand in the table (7, 8).

    Uncertain answers are left out of the share, as in the counts.
    """
    rates = np.array(table, dtype=np.float64)
    weight = rates.sum(axis=1)
    rates /= np.maximum(weight[:, None], 1)
    happy = EMOTIONS.index("happy")
    others = np.delete(np.arange(len(EMOTIONS)), happy)
    rest = weight[others] @ rates[others] / max(weight[others].sum(), 1)
    out = {}
    for true in shares:
        mixed = true * rates[happy] + (1 - true) * rest
        out[f"{true:.2f}"] = round(float(mixed[happy] / mixed[: len(EMOTIONS)].sum()), 4)
    return out

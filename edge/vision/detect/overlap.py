"""Which of several boxes are one face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import F32, FaceBox

OVERLAP: Final = 0.4
"""Two boxes are one face when their intersection covers this share of the smaller."""
SAME: Final = 0.3
"""Two answers of a network are one face when their intersection is more than this share of their union."""


def one_per_face(boxes: Sequence[FaceBox]) -> list[FaceBox]:
    """Best-scored boxes, each overlapping a better one by less than `OVERLAP` of the smaller box."""
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda b: -b.score):
        if all(_shared(box, other) < OVERLAP for other in kept):
            kept.append(box)
    return kept


def _shared(a: FaceBox, b: FaceBox) -> float:
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return max(0.0, w) * max(0.0, h) / min(a.w * a.h, b.w * b.h)


def centred(boxes: Sequence[FaceBox]) -> F32:
    """Boxes as float32 (N, 4): x and y of the centre, width, height."""
    return np.array([[*b.centre, b.w, b.h] for b in boxes], np.float32).reshape(-1, 4)


def iou(a: F32, b: F32) -> F32:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4): x and y of the centre, width, height."""
    shared, one, other = _areas(a, b)
    return np.asarray(shared / (one + other - shared), np.float32)


def covered(a: F32, b: F32) -> F32:
    """Intersection over the smaller of both (N, M) of boxes (N, 4) and (M, 4): x and y of the centre, width, height."""
    shared, one, other = _areas(a, b)
    return np.asarray(shared / np.minimum(one, other), np.float32)


def _areas(a: F32, b: F32) -> tuple[F32, F32, F32]:
    """Areas of the intersections (N, M), of the boxes (N, 1), of the others (1, M)."""
    half, other = a[:, None, 2:] / 2, b[None, :, 2:] / 2
    low = np.maximum(a[:, None, :2] - half, b[None, :, :2] - other)
    sides = np.maximum(np.minimum(a[:, None, :2] + half, b[None, :, :2] + other) - low, 0)
    return sides[..., 0] * sides[..., 1], (a[:, 2] * a[:, 3])[:, None], (b[:, 2] * b[:, 3])[None]


def weighted_nms(scores: F32, boxes: F32, weights: F32) -> tuple[F32, F32]:
    """Merge the answers of a network to one a face: their weighted mean (Bazarevsky et al. 2019, section 3.4).

    Args:
        scores: (N,), above 0.
        boxes: (N, B), x and y of the centre, width, height; what follows is averaged with them.
        weights: (N,), above 0.

    Returns:
        Scores (F,), each the best of its face, in falling order, and boxes (F, B).

    """
    order = np.argsort(-scores, kind="stable")
    scores, boxes, weights = scores[order], boxes[order], weights[order]
    same = iou(boxes[:, :4], boxes[:, :4]) > SAME
    left, best, merged = np.ones(len(scores), bool), [], []
    while left.any():
        first = int(left.argmax())
        group = left & same[first]
        group[first] = True
        best.append(scores[first])
        merged.append(weights[group] @ boxes[group] / weights[group].sum())
        left &= ~group
    return np.array(best, np.float32), np.array(merged, np.float32).reshape(-1, boxes.shape[1])

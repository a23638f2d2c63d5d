"""Groups of faces whose accuracy is reported apart: how they are lit, how sharp they are, how they are turned and cut.

Groups are drawn from the picture and its landmarks alone. What FER2013 does not say (age, sex, skin tone) is not
guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge_quantize.evaluation import metrics
from edge_quantize.masks.landmarks import POINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import U8
    from edge_quantize.masks.landmarks import Landmarks

QUARTERS = (0.25, 0.5, 0.75)
TURNED = (0.15, 0.35)
"""Bounds of `yaw` between frontal, half turned and turned."""


def quartile(values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Quartile 0 to 3 of each value (N,)."""
    return np.searchsorted(np.quantile(values, QUARTERS), values)


def sharpness(images: U8) -> NDArray[np.float64]:
    """Variance of the Laplacian of each picture (N, H, W) (Pech-Pacheco et al. 2000, ICPR)."""
    return np.array([cv2.Laplacian(image, cv2.CV_64F).var() for image in images])


def yaw(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far heads are turned: offset of the nose tip from the middle of the eyes, along them, in eye distances.

    Args:
        points: (N, 31, 2) landmarks.

    """
    left = points[:, [POINT["eye_left_outer"], POINT["eye_left_inner"]]].mean(axis=1)
    right = points[:, [POINT["eye_right_inner"], POINT["eye_right_outer"]]].mean(axis=1)
    between = right - left
    length = np.maximum(np.linalg.norm(between, axis=1), 1e-6)
    nose = points[:, POINT["nose_tip"]] - (left + right) / 2
    offset: NDArray[np.float64] = np.abs((nose * between).sum(axis=1) / length**2).astype(np.float64)
    return offset


def by_group(images: U8, marks: Landmarks | None, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy by group.

    Args:
        images: u8 (N, 48, 48), the faces without a mask.
        marks: landmarks of the whole data set, None where they were not looked for.
        rows: (N,) rows of the faces in the data set.
        right: (N,) whether the answer was right.

    Returns:
        `by_luminance_quartile`, `by_sharpness_quartile` and, with landmarks, `by_yaw` and `by_chin`: by group a share
        with its n and interval. The chin that lies below the picture is the one occlusion of the lower face that the
        landmarks show; hands and hair are not told from skin.

    """
    light, sharp = quartile(images.mean(axis=(1, 2))), quartile(sharpness(images))
    out = {
        "by_luminance_quartile": {str(q + 1): metrics.share(right[light == q]) for q in range(4)},
        "by_sharpness_quartile": {str(q + 1): metrics.share(right[sharp == q]) for q in range(4)},
    }
    if marks is None:
        return out
    found, points = marks.found[rows], marks.points[rows]
    turn = np.searchsorted(TURNED, yaw(points))
    names = (
        f"frontal, nose within {TURNED[0]} eye distances of the middle",
        "half turned",
        f"turned, past {TURNED[1]}",
    )
    out["by_yaw"] = {name: metrics.share(right[found & (turn == k)]) for k, name in enumerate(names)}
    below = points[:, POINT["chin"], 1] > images.shape[1] - 1
    out["by_chin"] = {
        "inside the picture": metrics.share(right[found & ~below]),
        "below the picture": metrics.share(right[found & below]),
        "no landmarks found": metrics.share(right[~found]),
    }
    return out

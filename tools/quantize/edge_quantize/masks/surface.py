"""A mask as the surface it is: laid over a mean head, turned as the head is turned.

Four points and a homography put a flat mask on a face that looks ahead. On a turned head a mask is no plane: its far
half foreshortens and disappears behind the near one, a cup stands out before the cheek, the loops show on one side.
So the landmarks are explained by a mean head seen from somewhere (an affine camera), and the mask is a shell over that
head, seen by the same camera.

Unit of length is the distance between the eyes' centres, the origin lies midway between them: x to the picture's right,
y down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_quantize.masks.landmarks import POINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]

_HALF: Final[dict[str, tuple[float, float, float]]] = {
    # Median of 400 frontal, neutral faces of FER2013's training split as the face mesh sees them, made symmetric.
    "jaw_0": (-1.044, 0.201, 0.875), "jaw_1": (-1.0, 0.645, 0.871), "chin": (0, 1.628, 0.066),
    "bridge_0": (0, -0.062, -0.294), "bridge_1": (0, 0.07, -0.356), "bridge_2": (0, 0.183, -0.428),
    "bridge_3": (0, 0.29, -0.507), "nose_tip": (0, 0.533, -0.619), "subnasale": (0, 0.709, -0.339),
    "eye_left_outer": (-0.71, -0.015, 0.039), "eye_left_inner": (-0.275, 0.016, -0.042),
    "under_eye_left": (-0.81, 0.246, 0.05), "cheek_left": (-0.738, 0.485, -0.03),
}  # fmt: skip
_MIRROR: Final = {
    "jaw_0": "jaw_10", "jaw_1": "jaw_9", "eye_left_outer": "eye_right_outer", "eye_left_inner": "eye_right_inner",
    "under_eye_left": "under_eye_right", "cheek_left": "cheek_right",
}  # fmt: skip
MEAN_HEAD: Final[dict[str, tuple[float, float, float]]] = _HALF | {
    right: (-_HALF[left][0], *_HALF[left][1:]) for left, right in _MIRROR.items()
}
"""Where the named landmarks lie on the mean head."""
CHIN: Final = MEAN_HEAD["chin"][1]
_RIGID: Final = tuple(name for name in MEAN_HEAD if name not in {"chin", "jaw_1", "jaw_9"})
"""What neither speaks nor chews: from these the camera is found."""

# Cross-sections of the head by height: where its front lies once a mask bridges the hollows, half its width, its depth.
_Y: Final = (-0.2, 0.2, 0.5, 0.75, 1.0, 1.3, 1.62)
_FRONT: Final = (-0.26, -0.44, -0.62, -0.52, -0.40, -0.24, 0.02)
_WIDE: Final = (1.07, 1.06, 1.04, 1.02, 0.97, 0.87, 0.72)
_DEEP: Final = (1.2, 1.35, 1.5, 1.4, 1.25, 1.05, 0.8)

COLUMNS: Final = 176
ROWS: Final = 188
"""Points of a shell across and down: denser than the pixels of a face of 48 pixels, twice enlarged."""
SHELL_TOP, SHELL_BOTTOM = -0.15, 2.45
HANGING: Final = 32
"""Rows at the bottom that only a mask has that hangs from the chin."""


@dataclass(frozen=True, slots=True)
class Camera:
    """An affine camera: pixels (2,) = `matrix` (2, 3) @ point + `shift`."""

    matrix: F64
    shift: F64

    def project(self, points: F32 | F64) -> F64:
        """Pixels (..., 2) of points (..., 3)."""
        return np.asarray(points @ self.matrix.T + self.shift, dtype=np.float64)

    @property
    def away(self) -> F64:
        """Unit vector (3,) along which the camera looks, away from it."""
        across = np.cross(self.matrix[0], self.matrix[1])
        return np.asarray(across / max(float(np.linalg.norm(across)), 1e-9))

    @property
    def scale(self) -> float:
        """Pixels per unit of length."""
        return float(np.linalg.svd(self.matrix, compute_uv=False).mean())


def find_camera(points: NDArray[np.float32]) -> Camera:
    """Camera that shows the mean head as these landmarks (31, 2) lie, by least squares over what does not move."""
    head = np.array([(*MEAN_HEAD[name], 1.0) for name in _RIGID])
    seen = points[[POINT[name] for name in _RIGID]].astype(np.float64)
    solved, *_ = np.linalg.lstsq(head, seen, rcond=None)
    return Camera(np.ascontiguousarray(solved[:3].T), solved[3])


def turned(camera: Camera) -> float:
    """Degrees by which the head is turned to a side."""
    away = camera.away
    return float(np.degrees(np.arctan2(abs(away[0]), abs(away[2]))))


def outward(x: F64, y: F64, bulge: str, height: float) -> F64:
    """How far a mask of a shape stands out before the head at (x, y), in eye distances."""
    if bulge == "cup":
        return np.asarray(height * np.clip(1 - (x / 0.8) ** 2 - ((y - 0.95) / 0.85) ** 2, 0, 1) ** 0.7)
    if bulge == "ridge":
        return np.asarray(height * np.clip(1 - np.abs(x) / 0.85, 0, 1) * np.clip(1 - ((y - 0.9) / 0.9) ** 2, 0, 1))
    if bulge == "beak":
        return np.asarray(
            height * np.clip(1 - np.abs(y - 0.92) / 0.65, 0, 1) * np.clip(1 - (x / 0.82) ** 2, 0, 1) ** 0.5
        )
    if bulge == "panel":
        return np.asarray(height * np.clip(1.6 - np.abs(y - 0.95) / 0.4, 0, 1) * np.clip(1 - (x / 0.95) ** 2, 0, 1))
    return np.asarray(height * np.clip(1 - (x / 0.95) ** 2 - ((y - 0.9) / 0.95) ** 2, 0, 1))


@dataclass(frozen=True, slots=True)
class Shell:
    """A mask's surface, ROWS × COLUMNS points."""

    flat: F32
    """(R, C, 2) x and y on the canonical canvas, where the template is read."""
    points: F32
    """(R, C, 3) on the mean head."""
    normals: F32
    """(R, C, 3), outward, of length 1."""


def head_at(side: F64, y: F64, *, hangs: bool = False) -> F64:
    """Points (..., 3) of the head at heights y, `side` -1 to 1 from its left to its right, by angle.

    Below the chin the surface goes under the jaw, or down as cloth does that hangs from it.
    """
    low = np.clip(y, None, CHIN)
    under = np.clip(y - CHIN, 0, None)
    wide, deep, front = (np.interp(low, _Y, values) for values in (_WIDE, _DEEP, _FRONT))
    if hangs:
        wide = np.maximum(wide, np.interp(low, _Y, (*_WIDE[:4], 1.0, 0.97, 0.95)))
    angle = side * np.deg2rad(86)
    z = front + deep * (1 - np.cos(angle)) + under * (0.12 if hangs else 0.8)
    return np.stack([wide * np.sin(angle), low + under * (1.0 if hangs else 0.4), z], axis=-1)


@lru_cache(maxsize=64)
def shell(bulge: str, height: float, *, hangs: bool = False) -> Shell:
    """Surface of a mask.

    Args:
        bulge: its shape, see `outward`.
        height: how far that stands out, eye distances.
        hangs: whether it hangs from the chin instead of going under it.

    """
    side, y = np.meshgrid(np.linspace(-1, 1, COLUMNS), np.linspace(SHELL_TOP, SHELL_BOTTOM, ROWS))
    if not hangs:
        side, y = side[: ROWS - HANGING], y[: ROWS - HANGING]
    points = head_at(side, y, hangs=hangs)
    flat = np.stack([points[..., 0], y], axis=-1).astype(np.float32)
    points[..., 2] -= outward(points[..., 0], y, bulge, height)
    down, across = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = np.cross(down, across)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    return Shell(flat, points.astype(np.float32), normals.astype(np.float32))


def stretched(points: F32, stretch: float) -> F32:
    """Points of a face that is longer than the mean below the nose."""
    longer = points.copy()
    longer[..., 1] += np.float32(stretch - 1) * np.clip(points[..., 1] - 0.5, 0, None)
    return longer

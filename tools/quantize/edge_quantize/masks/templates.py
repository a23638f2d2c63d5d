"""Masks drawn on the canonical face, ready to be put on any face by a homography.

Unit of length is the distance between the eyes' centres; the origin lies midway between them, x to the picture's right,
y down. The outlines were laid out on the median frontal face of FER2013's training images (chin at y = 1.64, jaw at
x = ±1.01, y = .65, nose tip at y = .54).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS: Final = ("surgical", "cloth", "n95", "kn95", "gaiter")
"""Mask families; the number of a kind is its place here. The gaiter is kept for the frozen test set."""

TRAINED_KINDS: Final = KINDS[:4]
UNSEEN_KIND: Final = KINDS.index("gaiter")

SMALLEST_TEMPLATE: Final = 32
"""Least side of a user's own mask in pixels."""

ANCHORS: Final = np.array([(-1.014, 0.65), (0.0, 0.18), (1.01, 0.65), (0.0, 1.644)], dtype=np.float32)
"""Left jaw, nose ridge, right jaw and chin of the canonical face: what the homography maps onto a real one."""

LEFT, TOP, WIDTH, HEIGHT = -1.5, -0.5, 3.0, 3.0
"""Canvas on which templates are drawn, in eye distances."""

TRAIN_VARIANTS: Final = range(12)
FROZEN_VARIANTS: Final = range(100, 108)
"""Shapes of a kind; those of the frozen test set are never trained on."""

_Points = list[tuple[float, float]]

_OUTLINES: Final[dict[str, _Points]] = {
    # Right half, from the middle of the upper edge to the middle of the lower one.
    "surgical": [(0, 0.12), (0.3, 0.2), (0.62, 0.4), (0.93, 0.6), (0.95, 1.0),
        (0.83, 1.34), (0.56, 1.62), (0.25, 1.74), (0, 1.76)],
    "cloth": [(0, 0.12), (0.25, 0.18), (0.6, 0.36), (0.98, 0.52), (1.02, 0.78),
        (0.9, 1.15), (0.64, 1.48), (0.36, 1.68), (0, 1.76)],
    "n95": [(0, 0.06), (0.2, 0.16), (0.44, 0.44), (0.74, 0.7),
        (0.86, 1.05), (0.74, 1.42), (0.42, 1.7), (0, 1.82)],
    "kn95": [(0, 0.02), (0.17, 0.16), (0.55, 0.44), (0.95, 0.58), (0.98, 0.8),
        (0.8, 1.25), (0.48, 1.6), (0.2, 1.8), (0, 1.86)],
    "gaiter": [(0, 0.14), (0.32, 0.2), (0.72, 0.32), (1.1, 0.42), (1.14, 0.9),
        (1.08, 1.4), (1.02, 2.0), (0.98, 2.5), (0, 2.5)],
}  # fmt: skip

_STRAPS: Final[dict[str, list[_Points]]] = {
    "surgical": [[(0.9, 0.64), (1.06, 0.42), (1.16, 0.2)], [(0.86, 1.28), (1.02, 0.9), (1.15, 0.55)]],
    "cloth": [[(0.98, 0.56), (1.1, 0.38), (1.16, 0.2)], [(0.96, 0.95), (1.08, 0.75), (1.16, 0.55)]],
    "n95": [[(0.68, 0.66), (0.95, 0.3), (1.25, -0.1)], [(0.84, 1.2), (1.05, 1.05), (1.25, 0.9)]],
    "kn95": [[(0.94, 0.6), (1.08, 0.4), (1.16, 0.2)], [(0.86, 1.15), (1.02, 0.85), (1.15, 0.55)]],
    "gaiter": [],
}


@dataclass(frozen=True, slots=True)
class Template:
    """One drawn (or user-supplied) mask on the canonical canvas."""

    layers: NDArray[np.uint8]
    """(H, W, 3): cover (0 bare to 255 covered), detail (128 leaves the tone as it is), strap (0 to 255)."""
    scale: float
    """Pixels per eye distance."""

    @property
    def anchors(self) -> NDArray[np.float32]:
        """(4, 2) pixel coordinates of `ANCHORS` on the canvas."""
        return ((ANCHORS - np.array([LEFT, TOP], np.float32)) * self.scale - 0.5).astype(np.float32)


def curve(points: NDArray[np.float64], steps: int = 12) -> NDArray[np.float64]:
    """Catmull-Rom spline through the points."""
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], strict=True):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*parts, points[-1:]])


def pixels(points: NDArray[np.float64], scale: float) -> NDArray[np.int32]:
    """Fixed-point pixels (4 fractional bits) as OpenCV's drawing functions take them."""
    fixed: NDArray[np.int32] = np.round(((points - (LEFT, TOP)) * scale - 0.5) * 16).astype(np.int32)
    return fixed


def line(layer: NDArray[np.float32], points: NDArray[np.float64], scale: float, value: float, width: float) -> None:
    """Draw a line through points (N, 2) of the canvas, of a value and a width in eye distances."""
    thickness = max(1, round(width * scale))
    cv2.polylines(layer, [pixels(points, scale)], isClosed=False, color=(value,), thickness=thickness,
                  lineType=cv2.LINE_AA, shift=4)  # fmt: skip


def bent(y: float, bend: float, half: float) -> NDArray[np.float64]:
    """Points (25, 2) of a parabola across the mask at height y, `bend` lower in its middle, `half` to each side."""
    x = np.linspace(-half, half, 25)
    return np.stack([x, y + bend * (1 - (x / half) ** 2)], axis=1)


def _fabric(
    kind: str, xs: NDArray[np.float32], ys: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Relative brightness of the fabric: its print or weave, and the shading of its shape."""
    dome = 0.22 * (1 - np.clip((xs / 1.05) ** 2 + ((ys - 0.95) / 0.95) ** 2, 0, 1.6))
    detail = (1.0 + dome * rng.uniform(0.4, 1.4)).astype(np.float32)
    if kind == "cloth":
        pattern, period = (
            rng.choice(["plain", "stripes", "dots", "checks", "weave", "blotches"]),
            rng.uniform(0.12, 0.45),
        )
        angle = rng.uniform(0, np.pi)
        u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
        waves_u, waves_v = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
        depth = rng.uniform(0.1, 0.45)
        if pattern == "stripes":
            detail += depth * np.sign(waves_u)
        elif pattern == "dots":
            detail += 2 * depth * ((waves_u + waves_v) > 1.0)
        elif pattern == "checks":
            detail += depth * np.sign(waves_u * waves_v)
        elif pattern == "weave":
            detail += 0.06 * np.sin(2 * np.pi * xs / 0.05) * np.sin(2 * np.pi * ys / 0.05)
        elif pattern == "blotches":
            noise = rng.normal(0, 1, (9, 9)).astype(np.float32)
            detail += depth * cv2.resize(noise, detail.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if kind == "gaiter":
        wave = np.sin(2 * np.pi * (ys + 0.25 * xs**2 * rng.uniform(0.3, 1)) / rng.uniform(0.25, 0.5))
        detail += rng.uniform(0.08, 0.2) * wave * np.clip((ys - 0.3) / 0.8, 0, 1)
    if kind == "n95":
        detail -= 0.12 * np.exp(-(((ys - 0.95 - 0.12 * xs**2) / 0.05) ** 2))
    return np.asarray(detail, dtype=np.float32)


def _seams(kind: str, detail: NDArray[np.float32], scale: float, rng: np.random.Generator) -> None:
    """Draw pleats, seams, nose wire and stitches into the detail."""
    if kind == "surgical":
        for y in (0.72, 0.96, 1.2)[: int(rng.integers(2, 4))]:
            bend = rng.uniform(0.02, 0.16)
            line(detail, bent(y, bend, 0.95), scale, 0.8, 0.03)
            line(detail, bent(y + 0.045, bend, 0.95), scale, 1.14, 0.03)
        line(detail, bent(0.42, -0.2, 0.55), scale, 1.12, 0.04)
    elif kind == "cloth" and rng.random() < 0.5:
        line(detail, np.array([(0, 0.1), (0.02, 0.9), (0, 1.8)]), scale, 0.82, 0.025)
    elif kind == "n95":
        line(detail, bent(0.46, -0.28, 0.36), scale, 0.72, 0.07)
        line(detail, bent(1.5, 0.16, 0.6), scale, 0.85, 0.03)
    elif kind == "kn95":
        line(detail, np.array([(0, 0.0), (0, 0.9), (0, 1.9)]), scale, 0.78, 0.03)
        for side in (-1, 1):
            edge = np.array(_OUTLINES["kn95"][1:4]) * (0.93 * side, 1.0) + (0, 0.12)
            line(detail, curve(edge), scale, 0.86, 0.025)
            line(detail, np.array([(side * 0.86, 0.62), (side * 0.8, 1.15)]), scale, 0.86, 0.03)


@lru_cache(maxsize=128)
def draw(kind: int, variant: int, scale: float = 72.0) -> Template:
    """Draw a mask.

    Args:
        kind: number in `KINDS`.
        variant: seed of the shape and of the fabric.
        scale: pixels per eye distance.

    """
    name = KINDS[kind]
    rng = np.random.default_rng([2026, kind, variant])
    size = (round(HEIGHT * scale), round(WIDTH * scale))
    half = np.array(_OUTLINES[name], dtype=np.float64)
    # Variants differ in width, in the height of both edges, and a little in every bend.
    half *= (rng.uniform(0.92, 1.06), 1.0)
    low = np.clip((half[:, 1] - 0.4) / 1.3, 0, 1)
    half[:, 1] += (1 - low) * rng.uniform(-0.1, 0.14) + low * rng.uniform(-0.1, 0.1)
    half[1:-1] += rng.normal(0, 0.02, (len(half) - 2, 2))
    right = curve(half)
    outline = np.concatenate([right, right[::-1] * (-1, 1)])

    cover = np.zeros(size, np.float32)
    cv2.fillPoly(cover, [pixels(outline, scale)], color=(255,), lineType=cv2.LINE_AA, shift=4)
    feather = rng.uniform(0.01, 0.04) * scale
    cover = cv2.GaussianBlur(cover, (0, 0), max(0.3, feather)).astype(np.float32)

    ys, xs = np.mgrid[: size[0], : size[1]].astype(np.float32)
    xs, ys = (xs + 0.5) / np.float32(scale) + np.float32(LEFT), (ys + 0.5) / np.float32(scale) + np.float32(TOP)
    detail = _fabric(name, xs, ys, rng)
    _seams(name, detail, scale, rng)
    rim = rng.uniform(0.85, 1.12)
    line(detail, outline, scale, rim, 0.05)

    strap = np.zeros(size, np.float32)
    for points in _STRAPS[name]:
        for side in (-1, 1):
            line(strap, curve(np.array(points, dtype=np.float64) * (side, 1)), scale, 255.0, rng.uniform(0.03, 0.06))
    layers = np.stack([cover, np.clip(detail * 128, 0, 255), strap], axis=-1)
    return Template(np.round(layers).astype(np.uint8), scale)


def read_template(path: str, scale: float = 72.0) -> Template:
    """Read a user's own mask: a PNG with transparency, drawn on the canonical canvas.

    The picture covers x from -1.5 to 1.5 and y from -0.5 to 2.5 eye distances around the point between the eyes.

    Raises:
        SourceError: unreadable, without an alpha channel, smaller than 32 pixels, or all transparent.

    """
    picture = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        message = f"mask template {path}: expected a PNG with an alpha channel (BGRA)"
        raise SourceError(message)
    if min(picture.shape[:2]) < SMALLEST_TEMPLATE or not (picture[..., 3] > 128).any():
        message = f"mask template {path}: {picture.shape[1]} × {picture.shape[0]} pixels, or nothing opaque in it"
        raise SourceError(message)
    side = round(WIDTH * scale)
    small = cv2.resize(picture.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small[:, :, :3], cv2.COLOR_BGR2GRAY).astype(np.float32)
    cover = small[:, :, 3]
    mean = float(grey[cover > 128].mean()) if (cover > 128).any() else 128.0
    detail = np.clip(grey / max(mean, 1.0) * 128, 0, 255).astype(np.uint8)
    return Template(np.stack([cover, detail, np.zeros_like(cover)], axis=-1), scale)

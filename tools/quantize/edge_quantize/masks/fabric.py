"""What is on a mask: prints and weaves, pleats, seams, wires, valves and filters.

All draw into relative brightness on the canonical canvas of `templates.py`; 1 leaves the tone as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge_quantize.masks.templates import LEFT, TOP, bent, curve, line, pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

SCALE: Final = 72.0
"""Pixels of a drawing per eye distance."""


def printed(name: str, xs: NDArray[np.float32], ys: NDArray[np.float32], rng: np.random.Generator
           ) -> NDArray[np.float32]:  # fmt: skip
    """Relative brightness of what is printed or woven."""
    period, depth, angle = rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0, np.pi)
    u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    waves_u, waves_v = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
    sign = rng.choice([-1.0, 1.0])
    out = np.zeros_like(xs)
    if name == "stripes":
        out = depth * np.sign(waves_u)
    elif name == "dots":
        out = 2 * sign * depth * ((waves_u + waves_v) > 1.0)
    elif name == "checks":
        out = depth * (np.sign(waves_u) + np.sign(waves_v)) / 2
    elif name == "weave":
        out = 0.1 * np.sin(2 * np.pi * xs / 0.1) * np.sin(2 * np.pi * ys / 0.1)
    elif name in {"blotches", "flowers"}:
        side = 9 if name == "blotches" else 22
        noise = cv2.resize(rng.normal(0, 1, (side, side)).astype(np.float32), xs.shape[::-1],
                           interpolation=cv2.INTER_CUBIC)  # fmt: skip
        out = depth * (noise if name == "blotches" else 1.5 * np.sign(np.clip(np.abs(noise) - 0.6, 0, None)) * sign)
    elif name == "mouth":
        out = _mouth(xs, ys, rng)
    elif name == "letters":
        out = _letters(xs.shape, rng) * sign * depth * 1.5
    elif name == "folds":
        for _ in range(int(rng.integers(4, 9))):
            slope, at, width = rng.normal(0, 0.35), rng.uniform(0.2, 2.4), rng.uniform(0.05, 0.2)
            lean = (ys - at - slope * xs - rng.uniform(0, 0.3) * xs**2) / width
            out = out + rng.uniform(0.1, 0.35) * np.tanh(lean) * np.exp(-((lean / 2.5) ** 2))
        out = out + 0.05 * np.sin(2 * np.pi * xs / 0.12)
    return np.asarray(out, np.float32)


def _letters(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A word or a sign somewhere on the mask."""
    layer = np.zeros(size, np.float32)
    word = "".join(rng.choice(list("ABEHKMNORSTXZ0358"), int(rng.integers(1, 6))))
    at = (round((rng.uniform(-0.9, 0.2) - LEFT) * SCALE), round((rng.uniform(0.7, 1.4) - TOP) * SCALE))
    cv2.putText(layer, word, at, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.4, 1.4), (1.0,), int(rng.integers(1, 5)),
                cv2.LINE_AA)  # fmt: skip
    return layer


def _mouth(xs: F32, ys: F32, rng: np.random.Generator) -> F32:
    """A mouth where one would be, smiling or not, some with teeth, some with the shadow of a nose: the face goes on."""
    half, thick, bend = rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.22), rng.uniform(-0.5, 0.7)
    across = xs / half
    below = ys - rng.uniform(1.0, 1.3) + bend * xs**2
    lips = np.clip(1 - across**2, 0, 1) * thick
    out = -rng.uniform(0.15, 0.6) * (np.abs(below) < lips).astype(np.float32)
    if rng.random() < 0.5:
        teeth = np.abs(below) < lips * rng.uniform(0.4, 0.75)
        out = np.where(teeth, rng.uniform(0.1, 0.6) - 0.25 * (np.sin(xs * rng.uniform(30, 70)) > 0.9), out)
    else:
        out = np.where((np.abs(below) < 0.02) & (np.abs(across) < 1.2), -0.6, out)
    if rng.random() < 0.5:
        out = out - rng.uniform(0.1, 0.4) * np.exp(-((xs / 0.22) ** 2) - ((ys - rng.uniform(0.5, 0.75)) / 0.07) ** 2)
    return np.asarray(out, np.float32)


def _disc(layer: NDArray[np.float32], centre: tuple[float, float], radius: float, value: float) -> None:
    at = pixels(np.array([centre]), SCALE)[0]
    cv2.circle(layer, (int(at[0]), int(at[1])), round(radius * SCALE * 16), (value,), -1, cv2.LINE_AA, 4)


def _pleats(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    count, bend = int(rng.integers(2, 5)), rng.uniform(-0.05, 0.16)
    dark, bright = rng.uniform(0.62, 0.92), rng.uniform(1.03, 1.2)
    for y in np.linspace(rng.uniform(0.6, 0.8), rng.uniform(1.15, 1.4), count):
        line(detail, bent(float(y), bend, 0.97), SCALE, dark, rng.uniform(0.02, 0.05))
        line(detail, bent(float(y) + 0.05, bend, 0.97), SCALE, bright, 0.03)


def _wire(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    if rng.random() < 0.8:
        way = bent(rng.uniform(0.3, 0.46), -0.24, rng.uniform(0.3, 0.55))
        line(detail, way, SCALE, rng.uniform(0.6, 1.2), rng.uniform(0.03, 0.09))


def _seam(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    way = np.array([(0, 0.0), (0.01, 0.9), (0, 1.9)])
    line(detail, way, SCALE, rng.uniform(0.6, 0.9), rng.uniform(0.02, 0.05))


def _perhaps_seam(cover: F32, detail: F32, rng: np.random.Generator) -> None:
    if rng.random() < 0.8:
        _seam(cover, detail, rng)


def _folds(_cover: F32, detail: F32, _rng: np.random.Generator) -> None:
    for side in (-1, 1):
        line(detail, np.array([(side * 0.88, 0.6), (side * 0.82, 1.18)]), SCALE, 0.84, 0.03)
        way = curve(np.array([(side * 0.15, 0.3), (side * 0.5, 0.58), (side * 0.88, 0.72)]))
        line(detail, way, SCALE, 0.86, 0.03)


def _rings(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    for y in rng.uniform(0.5, 1.5, int(rng.integers(0, 4))):
        line(detail, bent(float(y), rng.uniform(0.05, 0.25), 0.85), SCALE, rng.uniform(0.8, 0.95), 0.04)


def _panel(detail: F32, y: float, bend: float, rng: np.random.Generator) -> None:
    way = bent(y + rng.normal(0, 0.04), bend, 0.97)
    line(detail, way, SCALE, rng.uniform(0.55, 0.85), rng.uniform(0.03, 0.06))


def _panels(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    _panel(detail, 0.62, -0.1, rng)
    _panel(detail, 1.3, 0.16, rng)


def _beak(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    _panel(detail, 0.92, 0.02, rng)


def _valve(_cover: F32, detail: F32, rng: np.random.Generator) -> None:
    if rng.random() < 0.25:
        at = (float(rng.choice([0.0, -0.45, 0.45])), rng.uniform(0.9, 1.25))
        radius = rng.uniform(0.12, 0.2)
        _disc(detail, at, radius, rng.uniform(0.5, 1.35))
        _disc(detail, at, radius * 0.7, rng.uniform(0.6, 1.2))


def _filters(cover: F32, detail: F32, rng: np.random.Generator) -> None:
    radius = rng.uniform(0.24, 0.36)
    for side in (-1, 1):
        at = (side * 0.6, 1.1)
        _disc(cover, at, radius, 1.0)
        _disc(detail, at, radius, rng.uniform(0.8, 2.2))
        _disc(detail, at, radius * 0.75, rng.uniform(1.2, 2.6))
    _disc(detail, (0, 1.1), 0.2, rng.uniform(0.5, 1.8))


FITTINGS: Final[dict[str, tuple[Callable[[F32, F32, np.random.Generator], None], ...]]] = {
    "surgical": (_pleats, _wire), "box": (_pleats, _wire), "pleated": (_pleats,), "cup": (_wire, _rings, _valve),
    "panels": (_wire, _panels, _valve), "kn95": (_wire, _seam, _folds, _valve), "shaped": (_perhaps_seam, _valve),
    "sponge": (_perhaps_seam, _valve), "duckbill": (_wire, _beak), "half-mask": (_filters,),
}  # fmt: skip
"""By family, what is drawn into cover and detail (H, W), in this order."""

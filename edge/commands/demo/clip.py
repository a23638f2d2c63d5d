"""The demo's clip: two public-domain portraits that walk through a scene, one of them also with a mask.

Portraits: Eileen Collins (NASA; scikit-image's `astronaut`), Grace Hopper (US Navy; matplotlib's sample data).
The masked one was made by `edge-quantize masks --image`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

SIZE: Final = (480, 360)
"""Width and height in pixels."""
FPS: Final = 8


@dataclass(frozen=True, slots=True)
class Visit:
    """A portrait in view from `start` to `end` seconds, its height and centre going from one place to another."""

    portrait: str
    start: float
    end: float
    height: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]


VISITS: Final = (
    Visit("astronaut", 0.5, 8, (210, 250), (110, 190), (180, 190)),
    Visit("hopper", 4, 13, (180, 220), (380, 330), (185, 190)),
    Visit("astronaut_masked", 11.5, 19, (230, 260), (120, 180), (185, 190)),
    Visit("hopper", 17.5, 26, (200, 170), (340, 390), (190, 180)),
    Visit("astronaut", 23, 31, (220, 260), (90, 170), (180, 190)),
    Visit("astronaut_masked", 29.5, 38, (240, 220), (350, 300), (185, 185)),
    Visit("astronaut", 34, 39.5, (200, 230), (100, 130), (180, 185)),
)
SECONDS: Final = 40


def _portrait(name: str) -> U8:
    data = np.frombuffer((files("edge.demo_material") / f"{name}.png").read_bytes(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)


def room(size: tuple[int, int] = SIZE) -> U8:
    """A plain wall with a floor and some grain, neither flat nor busy: uint8 BGR of (width, height)."""
    width, height = size
    rows = np.concatenate([np.linspace(150, 185, height * 3 // 4), np.linspace(95, 120, height - height * 3 // 4)])
    wall = rows[:, None] + np.linspace(-12, 12, width)[None, :]
    grain = np.random.default_rng(7).normal(0, 3, (height, width))
    picture: U8 = np.clip((wall + grain)[..., None] + (6, 0, -4), 0, 255).astype(np.uint8)
    return picture


def place(canvas: U8, portrait: U8, height: float, x: float, y: float) -> None:
    """Blend a portrait onto the canvas with soft oval edges, centred at (x, y)."""
    zoom = height / portrait.shape[0]
    small = cv2.resize(portrait, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    h, w = small.shape[:2]
    v, u = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    alpha = np.clip((1.0 - (np.abs(u) ** 2.6 + np.abs(v) ** 2.6)) * 4, 0, 1)[..., None]
    left, top = round(x - w / 2), round(y - h / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(canvas.shape[1], left + w), min(canvas.shape[0], top + h)
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = (alpha[part] * small[part] + (1 - alpha[part]) * under).astype(np.uint8)


def compose(path: Path) -> None:
    """Write the clip (40 s, MP4) to `path`. Raises SourceError when it cannot be written."""
    portraits = {visit.portrait: _portrait(visit.portrait) for visit in VISITS}
    wall = room()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE)
    if not writer.isOpened():
        msg = f"{path}: the demo's clip cannot be written: is there room in the temporary folder?"
        raise SourceError(msg)
    for index in range(SECONDS * FPS):
        t = index / FPS
        canvas = wall.copy()
        for visit in VISITS:
            if visit.start <= t < visit.end:
                s = (t - visit.start) / (visit.end - visit.start)
                height, x, y = (a + (b - a) * s for a, b in (visit.height, visit.x, visit.y))
                place(canvas, portraits[visit.portrait], height, x, y)
        writer.write(canvas)
    writer.release()

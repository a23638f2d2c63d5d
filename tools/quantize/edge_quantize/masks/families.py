"""Families of masks: how each is cut, how it stands out, what holds it, and which are kept from training.

A family is a way of making a mask, not a picture of one: each is drawn anew from a number, with its own outline, fabric
and fittings. Coordinates are those of `templates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import cv2
import numpy as np

from edge_quantize.masks.fabric import FITTINGS, SCALE, printed
from edge_quantize.masks.templates import HEIGHT, LEFT, TOP, WIDTH, curve, line, pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bulge = Literal["drape", "cup", "ridge", "beak", "panel"]
Held = Literal["ears", "head", "nothing"]
VARIANTS: Final = 96
"""Drawings of a family that training wears; validation and tests wear later numbers."""
TEST_VARIANTS: Final = range(1000, 1024)


@dataclass(frozen=True, slots=True)
class Family:
    """One way of making a mask."""

    name: str
    outline: tuple[tuple[float, float], ...]
    """Right half as seen from the front, from the middle of the upper edge to that of the lower one."""
    bulge: Bulge
    height: tuple[float, float]
    """How far it stands out, eye distances."""
    tone: tuple[float, float]
    """Usual grey levels."""
    held: Held
    prints: tuple[str, ...] = ("plain",)
    hangs: bool = False
    """Hangs from the chin instead of going under it."""


_SURGICAL = ((0, 0.12), (0.3, 0.2), (0.62, 0.4), (0.93, 0.58), (0.97, 1.0), (0.83, 1.36), (0.56, 1.62), (0.25, 1.74),
             (0, 1.78))  # fmt: skip
_PRINTS = ("plain", "stripes", "dots", "checks", "weave", "blotches", "flowers", "letters")
_FAMILIES: Final = (
    Family("surgical", _SURGICAL, "drape", (0.02, 0.16), (130, 235), "ears", ("plain", "plain", "plain", "blotches")),
    Family("box", ((0, 0.2), (0.5, 0.26), (0.85, 0.44), (1.0, 0.66), (0.97, 1.1), (0.82, 1.4), (0.5, 1.66), (0, 1.76)),
           "drape", (0.0, 0.1), (60, 235), "ears", _PRINTS),
    Family("cup", ((0, 0.04), (0.2, 0.14), (0.46, 0.42), (0.78, 0.7), (0.9, 1.05), (0.76, 1.42), (0.42, 1.72),
                   (0, 1.84)), "cup", (0.15, 0.38), (160, 248), "head"),
    Family("panels", ((0, 0.05), (0.28, 0.2), (0.62, 0.5), (0.97, 0.78), (0.98, 0.98), (0.75, 1.36), (0.45, 1.66),
                      (0, 1.8)), "panel", (0.12, 0.28), (140, 248), "head", ("plain", "letters")),
    Family("kn95", ((0, 0.02), (0.17, 0.16), (0.55, 0.44), (0.95, 0.58), (0.98, 0.8), (0.8, 1.25), (0.48, 1.6),
                    (0.2, 1.8), (0, 1.86)), "ridge", (0.12, 0.34), (60, 245), "ears", ("plain", "plain", "letters")),
    Family("shaped", ((0, 0.1), (0.25, 0.18), (0.6, 0.36), (0.98, 0.5), (1.03, 0.78), (0.9, 1.15), (0.64, 1.48),
                      (0.36, 1.68), (0, 1.78)), "ridge", (0.05, 0.2), (12, 235), "ears", _PRINTS),
    Family("pleated", ((0, 0.2), (0.4, 0.24), (0.8, 0.42), (1.0, 0.56), (1.02, 1.15), (0.86, 1.42), (0.5, 1.65),
                       (0, 1.74)), "drape", (0.0, 0.12), (15, 235), "ears", _PRINTS),
    Family("sponge", ((0, 0.1), (0.25, 0.2), (0.62, 0.36), (1.0, 0.36), (1.07, 0.5), (0.98, 0.95), (0.8, 1.3),
                      (0.5, 1.62), (0, 1.78)), "ridge", (0.06, 0.2), (12, 150), "ears"),
    Family("duckbill", ((0, 0.06), (0.3, 0.24), (0.6, 0.52), (0.9, 0.84), (0.9, 1.0), (0.62, 1.4), (0.3, 1.68),
                        (0, 1.76)), "beak", (0.3, 0.55), (150, 245), "head"),
    Family("bandana", ((0, 0.2), (0.4, 0.26), (0.85, 0.4), (1.05, 0.5), (1.02, 1.1), (0.72, 1.65), (0.35, 2.1),
                       (0, 2.35)), "drape", (0.0, 0.1), (15, 220), "nothing", ("flowers", "blotches", "dots"),
           hangs=True),
    Family("scarf", ((0, 0.22), (0.5, 0.28), (1.06, 0.36), (1.07, 0.9), (1.05, 1.5), (1.0, 2.3), (0, 2.38)), "drape",
           (0.02, 0.16), (15, 220), "nothing", ("folds",), hangs=True),
    Family("half-mask", ((0, 0.08), (0.2, 0.18), (0.42, 0.5), (0.6, 0.85), (0.62, 1.2), (0.45, 1.55), (0.2, 1.74),
                         (0, 1.78)), "cup", (0.2, 0.4), (15, 120), "head", ("filters",)),
    Family("printed", ((0, 0.12), (0.3, 0.2), (0.65, 0.38), (1.0, 0.52), (1.02, 0.95), (0.86, 1.35), (0.58, 1.6),
                       (0, 1.77)), "drape", (0.0, 0.18), (90, 235), "ears", ("mouth",)),
)  # fmt: skip
FAMILIES: Final = {family.name: family for family in _FAMILIES}
NEVER_SEEN: Final = ("duckbill", "bandana", "scarf", "half-mask")
"""Families that no training image wears, for what a gate makes of masks that nobody thought of. Fixed: figures depend
on it."""
TRAINED: Final = tuple(name for name in FAMILIES if name not in NEVER_SEEN)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One mask of a family on the canonical canvas."""

    cover: NDArray[np.float32]
    """(H, W) opacity 0 to 1."""
    detail: NDArray[np.float32]
    """(H, W) relative brightness, 1 leaves the tone as it is."""
    outline: NDArray[np.float64]
    """(N, 2) right half of the edge, top to bottom."""

    def edge(self, y: float) -> float:
        """How wide the mask is at a height, eye distances from its middle."""
        return float(self.outline[np.abs(self.outline[:, 1] - y).argmin(), 0])


@lru_cache(maxsize=1024)
def draw(name: str, variant: int) -> Drawing:
    """Draw one mask of a family.

    Args:
        name: a key of `FAMILIES`.
        variant: seed of outline, fabric and fittings.

    """
    family = FAMILIES[name]
    rng = np.random.default_rng([2027, _FAMILIES.index(family), variant])
    size = (round(HEIGHT * SCALE), round(WIDTH * SCALE))
    half = np.array(family.outline, dtype=np.float64)
    half *= (rng.uniform(0.88, 1.06), 1.0)
    low = np.clip((half[:, 1] - 0.4) / 1.3, 0, 1)
    half[:, 1] += (1 - low) * rng.uniform(-0.1, 0.14) + low * rng.uniform(-0.16, 0.1)
    half[1:-1] += rng.normal(0, 0.025, (len(half) - 2, 2))
    right = curve(half)
    outline = np.concatenate([right, right[::-1] * (-1, 1)])
    cover = np.zeros(size, np.float32)
    cv2.fillPoly(cover, [pixels(outline, SCALE)], color=(1.0,), lineType=cv2.LINE_AA, shift=4)
    ys, xs = np.mgrid[: size[0], : size[1]].astype(np.float32)
    xs, ys = (xs + 0.5) / np.float32(SCALE) + np.float32(LEFT), (ys + 0.5) / np.float32(SCALE) + np.float32(TOP)
    detail = 1 + printed(str(rng.choice(family.prints)), xs, ys, rng)
    if rng.random() < 0.5:  # crumpled
        creases = rng.normal(0, 1, (12, 12)).astype(np.float32)
        detail += rng.uniform(0.02, 0.1) * cv2.resize(creases, size[::-1], interpolation=cv2.INTER_CUBIC)
    detail = detail.astype(np.float32)
    for fit in FITTINGS.get(name, ()):
        fit(cover, detail, rng)
    if rng.random() < 0.7:
        line(detail, outline, SCALE, rng.uniform(0.7, 1.2), rng.uniform(0.03, 0.08))
    return Drawing(np.clip(cover, 0, 1), np.clip(detail, 0, 3), right)

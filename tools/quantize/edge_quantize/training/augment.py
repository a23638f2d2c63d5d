"""Augmentation of uint8 chips: geometry, light, what cameras do to a face, erasing. numpy and OpenCV only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

U8 = NDArray[np.uint8]


SIDE_LIT: Final = 0.4
"""Share of the relit chips that are lit from one side, where `side` allows any."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Ranges to draw from. Lengths are shares of the chip's side, angles degrees, noise in grey levels.

    `p_light`, `p_camera` and `p_erase` are the shares of chips that get a light change, camera effects (one
    or two of noise, blur, motion, resolution, JPEG) and an erased rectangle. `gain` multiplies the grey levels; `side`
    is the largest share of light that one edge of the chip loses when the light comes from the other.
    """

    flip: float = 0.5
    rotate: float = 20.0
    scale: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.1
    p_light: float = 0.5
    gamma: tuple[float, float] = (0.5, 2.0)
    contrast: tuple[float, float] = (0.4, 1.3)
    gain: tuple[float, float] = (1.0, 1.0)
    side: float = 0.0
    p_camera: float = 0.3
    noise: float = 12.0
    p_erase: float = 0.25
    erase: tuple[float, float] = (0.02, 0.15)

    def geometry_only(self) -> Augment:
        """The same geometry without light, camera effects and erasing."""
        return Augment(
            flip=self.flip,
            rotate=self.rotate,
            scale=self.scale,
            shift=self.shift,
            p_light=0.0,
            p_camera=0.0,
            p_erase=0.0,
        )


def augment(chips: U8, spec: Augment, rng: np.random.Generator) -> U8:
    """Augmented copy of uint8 chips (N, S, S); the input is left as it is."""
    out = np.empty_like(chips)
    for k, chip in enumerate(chips):
        changed = warp(chip, spec, rng)
        if rng.random() < spec.p_light:
            changed = light(changed, spec, rng)
        if rng.random() < spec.p_camera:
            for effect in rng.choice(len(CAMERA_EFFECTS), size=rng.integers(1, 3), replace=False):
                changed = CAMERA_EFFECTS[effect](changed, spec, rng)
        if rng.random() < spec.p_erase:
            changed = erase(changed, spec, rng)
        out[k] = changed
    return out


def warp(chip: U8, spec: Augment, rng: np.random.Generator) -> U8:
    """Flip, rotate, scale and shift in one bilinear pass; what lies outside repeats the edge, as on the device."""
    side = chip.shape[0]
    middle = (side - 1) / 2
    turn = np.deg2rad(rng.uniform(-spec.rotate, spec.rotate))
    zoom = rng.uniform(*spec.scale)
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    mirror = -1.0 if rng.random() < spec.flip else 1.0
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    shift = rng.uniform(-spec.shift, spec.shift, 2) * side
    matrix = np.column_stack([linear, middle + shift - linear @ (middle, middle)])
    return cv2.warpAffine(chip, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
        np.uint8, copy=False
    )


def light(chip: U8, spec: Augment, rng: np.random.Generator) -> U8:
    """Gamma (drawn evenly in its logarithm), contrast about the chip's mean, gain by one table; then side light."""
    gamma = np.exp(rng.uniform(*np.log(spec.gamma)))
    contrast = rng.uniform(*spec.contrast)
    levels = 255.0 * (np.arange(256) / 255.0) ** gamma
    mean = float(np.bincount(chip.ravel(), minlength=256) @ levels) / chip.size
    gain = np.exp(rng.uniform(*np.log(spec.gain)))
    table: U8 = np.clip(gain * (mean + contrast * (levels - mean)), 0, 255).astype(np.uint8)
    lit: U8 = table[chip]
    if spec.side and rng.random() < SIDE_LIT:
        return _side(lit, spec, rng)
    return lit


def _side(chip: U8, spec: Augment, rng: np.random.Generator) -> U8:
    """Light that falls off evenly across the chip, in a direction and by a share drawn at random."""
    turn, lost = rng.uniform(0, 2 * np.pi), rng.uniform(0, spec.side)
    along = np.linspace(-0.5, 0.5, chip.shape[0], dtype=np.float32)
    across = np.cos(turn) * along[None, :] + np.sin(turn) * along[:, None]
    dimmed: U8 = np.clip(chip * (1 - lost * np.clip(across + 0.5, 0, 1)), 0, 255).astype(np.uint8)
    return dimmed


def _noise(chip: U8, spec: Augment, rng: np.random.Generator) -> U8:
    sigma = rng.uniform(0, spec.noise)
    noisy = chip + sigma * rng.standard_normal(chip.shape, dtype=np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _blur(chip: U8, _spec: Augment, rng: np.random.Generator) -> U8:
    return cv2.GaussianBlur(chip, (0, 0), rng.uniform(0.4, 1.2)).astype(np.uint8, copy=False)


def _motion(chip: U8, _spec: Augment, rng: np.random.Generator) -> U8:
    length = int(rng.integers(3, 6))
    kernel = np.zeros((5, 5), np.float32)
    turn = rng.uniform(0, np.pi)
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, 9)
    rows, columns = np.rint(2 + along * np.sin(turn)), np.rint(2 + along * np.cos(turn))
    kernel[rows.astype(int), columns.astype(int)] = 1
    blurred = cv2.filter2D(chip, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    return blurred.astype(np.uint8, copy=False)


def _resolution(chip: U8, _spec: Augment, rng: np.random.Generator) -> U8:
    side = chip.shape[0]
    small = int(rng.integers(side // 2, side * 5 // 6 + 1))
    shrunk = cv2.resize(chip, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _jpeg(chip: U8, _spec: Augment, rng: np.random.Generator) -> U8:
    quality = int(rng.integers(25, 80))
    _, packed = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE).astype(np.uint8, copy=False)


CAMERA_EFFECTS: Final[tuple[Callable[[U8, Augment, np.random.Generator], U8], ...]] = (
    _noise,
    _blur,
    _motion,
    _resolution,
    _jpeg,
)


def erase(chip: U8, spec: Augment, rng: np.random.Generator) -> U8:
    """Cover one rectangle with one grey level (Zhong et al. 2020)."""
    side = chip.shape[0]
    area = rng.uniform(*spec.erase) * side * side
    aspect = np.exp(rng.uniform(-0.7, 0.7))
    height = min(side, max(1, round(np.sqrt(area * aspect))))
    width = min(side, max(1, round(np.sqrt(area / aspect))))
    top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    covered = chip.copy()
    covered[top : top + height, left : left + width] = rng.integers(0, 256)
    return covered

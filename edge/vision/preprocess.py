"""`gray48/1`: THE preprocessing. Training, calibration and the device all import this one.

Face box → square crop → grey uint8 → 48×48 → x = (u8 - 128) / 128. The input scale is exactly 1/128 with
zero point 0, so the int8 input is q = u8 - 128 and no two implementations can round differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import F32, U8, CropSpec, FaceBox

CHIP: Final = 48
"""Side of a chip in pixels."""
MIN_FACE: Final = 36
"""Faces whose box is narrower than this (pixels) are counted `too_small`, not classified."""


def to_grey(image: U8) -> U8:
    """Grey uint8 (H, W) of a grey (H, W) or BGR (H, W, 3) uint8 image; a grey image is returned as it is."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)


def shrink(image: U8, width: int, height: int, *, last: int = cv2.INTER_AREA) -> U8:
    """A smaller uint8 (H, W) or (H, W, 3) image, every pixel the mean of those it stands for; not for chips.

    It is halved first, as often as that goes: OpenCV does that ten times as fast as it averages over fractions of
    pixels. An odd row or column is left out then. `last`: how the rest of the way, a factor below two, is gone.
    """
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        h, w = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.resize(image, (width, height), interpolation=last).astype(np.uint8, copy=False)


def square(image: U8, box: FaceBox, crop: CropSpec) -> U8:
    """Cut the square around a face at the frame's own resolution.

    Side = scale × box width, centre moved by dy × box height along the head's own axis, pixels outside the
    frame replicated from its edge. A box with an angle is levelled (bilinear).

    Returns: uint8 (S, S) or (S, S, 3), S ≥ 1. Raises ValueError if the square misses the frame.
    """
    height, width = image.shape[:2]
    side = max(1, round(crop.scale * box.w))
    cx, cy = box.centre
    shift = crop.dy * box.h
    turn = np.deg2rad(box.angle)
    cx, cy = cx - shift * float(np.sin(turn)), cy + shift * float(np.cos(turn))
    if box.angle:
        matrix = np.asarray(cv2.getRotationMatrix2D((cx, cy), box.angle, 1.0), np.float64)
        matrix[:, 2] += side / 2 - cx, side / 2 - cy
        return cv2.warpAffine(
            image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.uint8, copy=False)
    x0, y0 = round(cx - side / 2), round(cy - side / 2)
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(width, x0 + side), min(height, y0 + side)
    if right <= left or bottom <= top:
        msg = f"face box {box} lies outside the {width}x{height} frame"
        raise ValueError(msg)
    inside = image[top:bottom, left:right]
    pad = (top - y0, y0 + side - bottom, left - x0, x0 + side - right)
    if any(pad):
        inside = cv2.copyMakeBorder(inside, *pad, borderType=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    return inside


def chip(image: U8, box: FaceBox, crop: CropSpec) -> U8:
    """Model input of one face, before normalisation: uint8 (48, 48). Raises ValueError as `square` does."""
    grey = to_grey(square(image, box, crop))
    method = cv2.INTER_AREA if grey.shape[0] > CHIP else cv2.INTER_CUBIC
    return cv2.resize(grey, (CHIP, CHIP), interpolation=method).astype(np.uint8, copy=False)


def to_input(chips: U8) -> F32:
    """Float model input (N, 48, 48, 1) in [-1, 127/128] of uint8 chips (N, 48, 48)."""
    return (chips.astype(np.float32)[..., None] - 128.0) / 128.0

"""PublicTest-C: faces as a kiosk's camera gives them, by fixed seeds.

After the idea of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261), at one strength each, chosen for a
lobby: a small sensor's noise (σ 10 grey levels), a lens out of focus (σ 1 pixel), a head that moves during the exposure
(5 pixels), an exposure metered on something else (gamma .5 or 2; × .3), a window behind (contrast × .4) or beside the
visitor (× 1 to × .3), a stream's compression (JPEG 30), a far face (36 and 24 pixels), a box that jitters (side × .85
and × 1.2) and a tilted head (15°). Pixels are those of the 48-pixel picture; a crop wider than the picture repeats its
edge, as the device does at the edge of a frame. Nothing here is shared with the augmentation of training (`augment`),
so that a mistake there cannot hide here.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.types import CropSpec, FaceBox
from edge.vision.preprocess import chip

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import U8

    Corruption = Callable[[U8, np.random.Generator], U8]

SEED: Final = 20261121


def _u8(values: np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]) -> U8:
    grey: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return grey


def _each(change: Callable[[U8, np.random.Generator], object]) -> Corruption:
    def corrupt(chips: U8, rng: np.random.Generator) -> U8:
        return np.stack([np.asarray(change(face, rng), np.uint8) for face in chips])

    return corrupt


def _noise(chips: U8, rng: np.random.Generator) -> U8:
    return _u8(chips + rng.normal(0, 10, chips.shape))


def _motion(face: U8, rng: np.random.Generator) -> object:
    line = np.zeros((5, 5), np.float32)
    line[2] = 1 / 5
    turned = cv2.warpAffine(line, cv2.getRotationMatrix2D((2, 2), float(rng.uniform(0, 180)), 1), (5, 5))
    return cv2.filter2D(face, -1, turned / turned.sum(), borderType=cv2.BORDER_REPLICATE)


def _gamma(face: U8, rng: np.random.Generator) -> object:
    return _u8(255 * (face / 255) ** rng.choice([0.5, 2.0]))


def _low_contrast(face: U8, _rng: np.random.Generator) -> object:
    return _u8(face.mean() + 0.4 * (face - face.mean()))


def _jpeg(face: U8, _rng: np.random.Generator) -> object:
    _, packed = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 30])
    return cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)


def _far(side: int) -> Corruption:
    def shrink(face: U8, _rng: np.random.Generator) -> object:
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
        return chip(small, FaceBox(0, 0, side, side), CropSpec(1.0, 0.0))

    return _each(shrink)


def _crop(scale: float) -> Corruption:
    def cut(face: U8, _rng: np.random.Generator) -> object:
        side = float(face.shape[0])
        return chip(face, FaceBox(0, 0, side, side), CropSpec(scale, 0.0))

    return _each(cut)


def _roll(face: U8, rng: np.random.Generator) -> object:
    side = face.shape[0]
    middle = ((side - 1) / 2, (side - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, float(rng.choice([-15.0, 15.0])), 1.0)
    return cv2.warpAffine(face, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _side_light(face: U8, rng: np.random.Generator) -> object:
    ramp = np.linspace(1.0, 0.3, face.shape[1])
    return _u8(face * (ramp if rng.random() < 0.5 else ramp[::-1]))


CORRUPTIONS: Final[dict[str, tuple[str, Corruption]]] = {
    "noise": ("Gaussian, σ 10 grey levels", _noise),
    "blur": ("Gaussian, σ 1 pixel", _each(lambda face, _: cv2.GaussianBlur(face, (0, 0), 1.0))),
    "motion": ("5 pixels, any direction", _each(_motion)),
    "gamma": (".5 or 2", _each(_gamma)),
    "dark": ("× .3", lambda chips, _: _u8(chips * 0.3)),
    "low contrast": ("× .4 about the mean", _each(_low_contrast)),
    "JPEG": ("quality 30", _each(_jpeg)),
    "36 px": ("face 36 pixels wide", _far(36)),
    "24 px": ("face 24 pixels wide, too small for the device to classify", _far(24)),
    "tight crop": ("side × .85", _crop(0.85)),
    "loose crop": ("side × 1.2, edges repeated", _crop(1.2)),
    "roll": ("15° either way", _each(_roll)),
    "side light": ("from × 1 to × .3 across the face", _each(_side_light)),
}
"""By name: what is done, in words, and the function that does it to uint8 chips (N, 48, 48)."""


def corrupt(name: str, chips: U8) -> U8:
    """Chips uint8 (N, 48, 48) through one corruption; the same chips give the same bytes in every run.

    Raises:
        KeyError: no corruption of that name.

    """
    _, change = CORRUPTIONS[name]
    return change(chips, np.random.default_rng([SEED, zlib.crc32(name.encode())]))

"""Synthetic masks: what is drawn for one face, and how it is put on.

Drawing lots (`draw_params`) and rendering (`render`) are apart, so that the parameters of a frozen test set can be
committed and rendered again to the same pixels without a landmark finder.

The shape of a mask must not tell the expression: an open mouth lowers the chin and would stretch the mask, and a net
would learn "long mask: surprise". So most masks are laid over a mean face with this one's eyes, and all anchors are
jittered; `edge-quantize leak-test` measures what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge_quantize.masks.landmarks import POINT
from edge_quantize.masks.templates import ANCHORS, KINDS, TRAIN_VARIANTS, TRAINED_KINDS, Template, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARAMS: Final = np.dtype(
    [
        ("index", "<i4"),  # row of the face in its data set
        ("kind", "u1"),
        ("variant", "u1"),
        ("quad", "<f4", (4, 2)),  # left jaw, nose ridge, right jaw, chin in pixels of the face
        ("tone", "<f4"),  # grey level of the fabric
        ("contrast", "<f4"),  # how much of the drawn detail shows
        ("gradient", "<f4", (2,)),  # light falling off to the right and downwards, fraction of the tone over the mask
        ("noise", "<f4"),  # standard deviation in grey levels
        ("blur", "<f4"),  # standard deviation in pixels of a 48-pixel face
        ("shadow", "<f4"),  # how much the mask darkens the skin beside it
        ("strap", "<f4"),  # grey level of the straps
        ("strap_cover", "<f4"),  # opacity of the straps, 0 where there are none to be seen
        ("hue", "<f4"),  # degrees; colour input only
        ("saturation", "<f4"),  # 0 to 1; colour input only
        ("seed", "<u4"),  # of the noise
    ]
)
"""Everything that decides the pixels of one masked face."""

_TONES: Final[dict[str, tuple[float, float]]] = {
    "surgical": (130, 225), "cloth": (15, 235), "n95": (170, 245), "kn95": (150, 245), "gaiter": (15, 200),
}  # fmt: skip

_SUPERSAMPLE: Final = 4
_SMALL: Final = 96


@dataclass(frozen=True, slots=True)
class Lots:
    """From what the parameters are drawn."""

    kinds: tuple[int, ...] = tuple(range(len(TRAINED_KINDS)))
    variants: range = TRAIN_VARIANTS
    neutral: float = 0.9
    """Share of masks that are laid over a mean face instead of this one's jaw."""
    jitter: float = 0.065
    """Standard deviation of the anchors, in eye distances."""


def eye_centres(points: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (x, y) of the left and the right eye of landmarks (31, 2)."""
    left = (points[POINT["eye_left_outer"]] + points[POINT["eye_left_inner"]]) / 2
    right = (points[POINT["eye_right_outer"]] + points[POINT["eye_right_inner"]]) / 2
    return left.astype(np.float64), right.astype(np.float64)


def anchors(points: NDArray[np.float32], rng: np.random.Generator, lots: Lots) -> NDArray[np.float32]:
    """Where the mask goes: (4, 2) left jaw, nose ridge, right jaw, chin in pixels, from landmarks (31, 2)."""
    if rng.random() < lots.neutral:
        return _neutral(points, rng, lots)
    left_eye, right_eye = eye_centres(points)
    eyes = float(np.hypot(*(right_eye - left_eye)))
    top = points[POINT["bridge_2"]].astype(np.float64)
    chin = points[POINT["chin"]].astype(np.float64)
    nose = points[POINT["subnasale"]].astype(np.float64) - points[POINT["bridge_0"]]
    # With the head turned aside the eyes come closer together and the nose keeps its length; tilted, the reverse.
    unit = max(eyes, float(np.hypot(*nose)) / 0.78)
    chin = top + (chin - top) * rng.normal(1.0, 0.07)
    # Slipped down the nose, or pulled up: along the ridge of the nose.
    ridge = points[POINT["nose_tip"]] - points[POINT["bridge_1"]]
    top = top + ridge * float(np.clip(rng.normal(0.05, 0.22), -0.35, 0.75))
    quad = np.stack([points[POINT["jaw_1"]], top, points[POINT["jaw_9"]], chin])
    return np.asarray(quad + rng.normal(0, lots.jitter * unit, (4, 2)), dtype=np.float32)


def _neutral(points: NDArray[np.float32], rng: np.random.Generator, lots: Lots) -> NDArray[np.float32]:
    """Anchors (4, 2) of a mean face over these eyes: of the landmarks below them, only how far the head is turned.

    Jaw, cheeks and nose move with the expression, so nothing is read off them; place, size and length are drawn widely,
    since the frame that FER2013 was cut to follows the open mouth too.
    """
    left_eye, right_eye = eye_centres(points)
    middle, across = (left_eye + right_eye) / 2, right_eye - left_eye
    eyes = max(float(np.hypot(*across)), 1e-6)
    along = across / eyes
    down = np.array([-along[1], along[0]])
    turned = float((points[POINT["nose_tip"]] - middle) @ along) / eyes
    place = ANCHORS.astype(np.float64)
    for row, name in ((0, "jaw_1"), (2, "jaw_9")):
        place[row, 0] = float((points[POINT[name]] - middle) @ along) / eyes
    place[1, 0] += 0.6 * turned
    place[3, 0] += 0.3 * turned
    place[:, 1] *= max(0.6, rng.normal(1.0, 2 * lots.jitter)) * float(np.hypot(1.0, turned))
    place += rng.normal(0, lots.jitter, place.shape) + rng.normal(0, 1.8 * lots.jitter, 2)
    centre = place.mean(axis=0)
    place = centre + (place - centre) * float(np.exp(rng.normal(0, 2 * lots.jitter)))
    return np.asarray(middle + eyes * (place[:, :1] * along + place[:, 1:] * down), dtype=np.float32)


def worn(points: NDArray[np.float32], slip: float = 0.0) -> NDArray[np.float32]:
    """Anchors (4, 2) of a mask worn as the landmarks (31, 2) say, slipped down the nose by 0 to 1 (to its tip)."""
    top = points[POINT["bridge_2"]] + slip * (points[POINT["nose_tip"]] - points[POINT["bridge_2"]])
    quad = [points[POINT["jaw_1"]], top, points[POINT["jaw_9"]], points[POINT["chin"]]]
    return np.asarray(np.stack(quad), dtype=np.float32)


def draw_params(
    index: int, face: NDArray[np.uint8], points: NDArray[np.float32], rng: np.random.Generator, lots: Lots
) -> NDArray[np.void]:
    """Draw lots for one face.

    Args:
        index: row of the face in its data set; stored.
        face: u8 (H, W) or (H, W, 3); its brightness sets how bright a mask can look in this light.
        points: (31, 2) landmarks in pixels of the face.
        rng: source of chance.
        lots: what to draw from.

    Returns:
        One record of `PARAMS`.

    """
    out = np.zeros((), PARAMS)
    kind = int(rng.choice(lots.kinds))
    low, high = _TONES[KINDS[kind]] if rng.random() < 0.6 else (10, 248)
    tone = rng.uniform(low, high)
    if rng.random() < 0.7:
        tone *= float(np.clip(np.percentile(face, 90) / 200, 0.4, 1.1))
    out["index"], out["kind"], out["variant"] = index, kind, rng.choice(lots.variants)
    out["quad"] = anchors(points, rng, lots)
    out["tone"] = np.clip(tone, 8, 250)
    out["contrast"] = rng.uniform(0.25, 1.2)
    out["gradient"] = rng.normal(0, 0.16, 2)
    out["noise"] = abs(rng.normal(0, 2.5))
    out["blur"] = rng.uniform(0, 0.6)
    out["shadow"] = rng.uniform(0, 0.45)
    out["strap"] = np.clip(tone * rng.uniform(0.7, 1.3), 8, 250)
    out["strap_cover"] = rng.uniform(0.2, 0.9) if rng.random() < 0.7 else 0.0
    out["hue"], out["saturation"] = rng.uniform(0, 360), rng.uniform(0, 0.35)
    out["seed"] = rng.integers(0, 2**32, dtype=np.uint32)
    return out


def _tint(tone: NDArray[np.float32], params: NDArray[np.void]) -> NDArray[np.float32]:
    """Colour (H, W, 3) BGR of the given grey levels, at the drawn hue and saturation."""
    angle = np.deg2rad(float(params["hue"]) + np.array([240.0, 120.0, 0.0]))
    colour = 1 + float(params["saturation"]) * np.cos(angle)
    colour /= colour @ (0.114, 0.587, 0.299)
    return np.asarray(tone[..., None] * colour.astype(np.float32), dtype=np.float32)


def coverage(params: NDArray[np.void], size: tuple[int, int] = (48, 48)) -> NDArray[np.float32]:
    """How far each pixel of a (H, W) face is covered by the mask of these parameters, 0 to 1."""
    cover, _, _ = _layers(params, size, 1, draw(int(params["kind"]), int(params["variant"])))
    return cover


def _layers(
    params: NDArray[np.void], size: tuple[int, int], factor: int, template: Template
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cover (0 to 1), detail (1: as the tone) and strap (0 to 1) on the face's pixels, `factor` times finer."""
    quad = ((params["quad"] + 0.5) * factor - 0.5).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(template.anchors, quad)
    warped = cv2.warpPerspective(template.layers, matrix, (size[1] * factor, size[0] * factor), flags=cv2.INTER_LINEAR)
    cover, detail, strap = (warped[..., n].astype(np.float32) for n in range(3))
    return cover / 255, detail / 128, strap / 255


def render(face: NDArray[np.uint8], params: NDArray[np.void], template: Template | None = None) -> NDArray[np.uint8]:
    """Put a mask on a face.

    Args:
        face: u8 (H, W) grey or (H, W, 3) BGR.
        params: one record of `PARAMS`, its quad in pixels of this picture.
        template: another mask than the drawn one of `params`.

    Returns:
        A new picture of the same shape. The same input gives the same pixels.

    """
    size = (face.shape[0], face.shape[1])
    small = max(size) <= _SMALL
    factor = _SUPERSAMPLE if small else 1
    if template is None:
        template = draw(int(params["kind"]), int(params["variant"]), 72.0 if small else 144.0)
    cover, detail, strap = _layers(params, size, factor, template)
    rng = np.random.default_rng(int(params["seed"]))

    height, width = cover.shape
    centre = params["quad"].mean(axis=0) * factor
    reach = np.abs(params["quad"][2] - params["quad"][0]).max() * factor + 1e-6
    xs = (np.arange(width, dtype=np.float32) - centre[0]) / reach
    ys = (np.arange(height, dtype=np.float32) - centre[1]) / reach
    light = 1 + params["gradient"][0] * xs[None, :] + params["gradient"][1] * ys[:, None]
    fabric = params["tone"] * light * (1 + params["contrast"] * (detail - 1))
    # A shadow below and around the mask, where the skin is bare.
    dark = cv2.GaussianBlur(cover, (0, 0), 0.03 * float(reach))
    dark = 1 - params["shadow"] * np.clip(dark, 0, 1)
    band = strap * params["strap_cover"] * (1 - cover)
    if factor > 1:
        area = (size[1], size[0])
        cover, fabric, dark, band = (
            cv2.resize(layer.astype(np.float32), area, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
            for layer in (cover, fabric, dark, band)
        )
    blur = float(params["blur"]) * max(size) / 48
    if blur > 0.2:
        cover = cv2.GaussianBlur(cover, (0, 0), blur).astype(np.float32, copy=False)
        fabric = cv2.GaussianBlur(fabric, (0, 0), blur).astype(np.float32, copy=False)
    fabric = fabric + rng.normal(0, float(params["noise"]), size).astype(np.float32)
    base = face.astype(np.float32)
    if face.ndim == 3:
        layer = _tint(fabric.astype(np.float32), params)
        cover, band, dark = cover[..., None], band[..., None], dark[..., None]
    else:
        layer = fabric.astype(np.float32)
    out = base * dark
    out = out * (1 - band) + params["strap"] * band
    out = out * (1 - cover) + layer * cover
    made: NDArray[np.uint8] = np.clip(np.round(out), 0, 255).astype(np.uint8)
    return made


def _flatness(quad: NDArray[np.float32]) -> float:
    """Distance of the nearer jaw point from the line nose-chin, as a fraction of the width between both jaw points."""
    left, top, right, chin = quad.astype(np.float64)
    axis = (chin - top) / max(float(np.hypot(*(chin - top))), 1e-6)
    aside = [abs(float(axis[0] * (p - top)[1] - axis[1] * (p - top)[0])) for p in (left, right)]
    return min(aside) / max(float(np.hypot(*(right - left))), 1e-6)


def refusal(params: NDArray[np.void], points: NDArray[np.float32], size: tuple[int, int] = (48, 48)) -> str | None:
    """Say why a mask does not sit well, or None.

    `profile`: the head is turned so far that the mask would fold over; `eyes` covered; `small` or `large` share of the
    picture covered.
    """
    quad = params["quad"]
    if not cv2.isContourConvex(np.round(quad * 16).astype(np.int32)) or _flatness(quad) < 0.06:
        return "profile"
    cover = coverage(params, size)
    share = float(cover.mean())
    if share < 0.08:
        return "small"
    if share > 0.75:
        return "large"
    for eye in eye_centres(points):
        x, y = np.clip(np.round(eye).astype(int), 0, (size[1] - 1, size[0] - 1))
        if cover[y, x] > 0.3:
            return "eyes"
    return None

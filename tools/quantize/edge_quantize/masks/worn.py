"""Masks as they sit on heads turned any way: lots, rendering, and sets of them for the gate.

Flat masks (`synthesis.py`) stay what the frozen test set and the masked expression net are made of. These here are for
the gate, which has to know a mask from the side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge_quantize.datasets.fer2013 import save_arrays
from edge_quantize.masks.fabric import SCALE
from edge_quantize.masks.families import FAMILIES, NEVER_SEEN, TEST_VARIANTS, TRAINED, VARIANTS, draw
from edge_quantize.masks.landmarks import POINT
from edge_quantize.masks.surface import CHIN, MEAN_HEAD, Camera, find_camera, head_at, shell, stretched, turned
from edge_quantize.masks.synthesis import eye_centres
from edge_quantize.masks.templates import LEFT, TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import U8
    from edge_quantize.masks.families import Drawing, Family
    from edge_quantize.masks.landmarks import Landmarks
    from edge_quantize.masks.surface import Shell

    F32 = NDArray[np.float32]

TEST_SEED: Final = 20261129
"""Of the renderings that nobody trains on."""
SLIP: Final = (0.05, 0.22, -0.35, 0.75)
"""How far down the nose a mask may have slipped and still counts as worn: mean, deviation, least, most, as shares of
the way from the bridge to the tip. The flat masks' rule."""
SKIN_SHARE: Final = 0.15
"""Share of the masks for training that have the tone of the face they cover; the tests keep their tones by lot."""
FAR_EYE: Final = 35.0
"""Degrees past which the farther eye lies behind the nose: a mask that stands out may hide it."""
_FINER: Final = 2
_TRIES: Final = 6
_CHUNK: Final = 128
_RIDGE: Final = MEAN_HEAD["nose_tip"][1] - MEAN_HEAD["bridge_1"][1]


@dataclass(frozen=True, slots=True)
class Layers:
    """A mask seen by a camera, float32 (H, W) each, `_FINER` times finer than the face."""

    cover: F32
    """Opacity, 0 to 1."""
    fabric: F32
    """Brightness relative to the tone, light on its shape included, times the opacity."""


def splat(surface: Shell, camera: Camera, cover: F32, fabric: F32, size: tuple[int, int]) -> Layers:
    """Show the points of a shell, the nearer ones before the farther, those that look away not at all."""
    height, width = size[0] * _FINER, size[1] * _FINER
    away = camera.away.astype(np.float32)
    seen = (cover > 0.02) & (surface.normals @ away < 0.02)
    points, alpha, bright = surface.points[seen], cover[seen], fabric[seen]
    column, row = np.floor((camera.project(points) + 0.5) * _FINER).astype(np.int32).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.flatnonzero(inside)
    order = order[np.argsort(-(points[order] @ away), kind="stable")]
    place = row[order] * width + column[order]
    layer = np.zeros((2, height * width), np.float32)
    hit = np.zeros(height * width, np.uint8)
    layer[0, place], layer[1, place], hit[place] = alpha[order], bright[order], 1
    shown, values, drawn = layer[0].reshape(height, width), layer[1].reshape(height, width), hit.reshape(height, width)
    # Pixels between points that a near surface leaves open.
    square = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(cv2.copyMakeBorder(drawn, 2, 2, 2, 2, cv2.BORDER_REPLICATE), cv2.MORPH_CLOSE, square)
    holes = (closed[2:-2, 2:-2] > 0) & (drawn == 0)
    if holes.any():
        weight = np.maximum(cv2.blur(drawn.astype(np.float32), (3, 3)), 1e-6)
        for one in (shown, values):
            one[holes] = (cv2.blur(one * drawn, (3, 3)) / weight)[holes]
    return Layers(shown, (shown * values).astype(np.float32))


def _read(drawing: Drawing, surface: Shell, move: NDArray[np.float64]) -> tuple[F32, F32]:
    """Opacity and detail at the shell's points; `move` (2, 3) maps the head's canvas to the mask's."""
    flat = surface.flat @ move[:, :2].T.astype(np.float32) + move[:, 2].astype(np.float32)
    x, y = ((flat[..., n] - low) * np.float32(SCALE) - np.float32(0.5) for n, low in ((0, LEFT), (1, TOP)))
    return tuple(  # type: ignore[return-value]
        cv2.remap(layer, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0.0,))
        for layer in (drawing.cover, drawing.detail)
    )


def _straps(family: Family, drawing: Drawing, camera: Camera, slip: float, size: tuple[int, int], width: float) -> F32:
    """Opacity (H, W), finer, of the loops or bands on the sides that can be seen."""
    layer = np.zeros((size[0] * _FINER, size[1] * _FINER), np.float32)
    if family.held == "nothing":
        return layer
    ends = ((0.15, 0.62), (0.5, 1.2)) if family.held == "ears" else ((-0.15, 0.68), (0.95, 1.22))
    for side in (-1.0, 1.0):
        if side * camera.away[0] > 0.3:
            continue
        for end, start in ends:
            edge = np.arcsin(np.clip(drawing.edge(start) / 1.02, 0, 0.999)) / np.deg2rad(86)
            along = np.linspace(0, 1, 9)
            path = head_at(side * (edge + (1.02 - edge) * along), start + slip + (end - start - slip) * along)
            path[:, 2] += 0.25 * along**2
            at = np.round(((camera.project(path) + 0.5) * _FINER - 0.5) * 16).astype(np.int32)
            cv2.polylines(layer, [at], isClosed=False, color=(1.0,), thickness=max(1, round(width)),
                          lineType=cv2.LINE_AA, shift=4)  # fmt: skip
    return layer


def _light(face: F32, cover: F32) -> F32:
    """How the light falls over the covered part of a face: low frequencies of its brightness, 1 on average."""
    smooth = cv2.GaussianBlur(face, (0, 0), 0.12 * face.shape[0]) + 8
    return np.clip(smooth / float((smooth * cover).sum() / max(cover.sum(), 1e-6)), 0.4, 1.8).astype(np.float32)


def wear(
    face: U8, points: F32, name: str, variant: int, rng: np.random.Generator, *, like_skin: bool = False
) -> U8 | str:
    """Put a mask of a family on a face.

    Args:
        face: u8 (48, 48), or of another size, grey.
        points: (31, 2) landmarks in its pixels.
        name: a key of `FAMILIES`.
        variant: which drawing of it.
        rng: source of chance.
        like_skin: in the tone of the face that it covers.

    Returns:
        A new picture of the same shape; or why the mask does not sit well: `eyes` covered, a `small` or `large` share
        of the picture covered.

    """
    family, drawing, size = FAMILIES[name], draw(name, variant), (face.shape[0], face.shape[1])
    camera = find_camera(points)
    stretch = _stretch(camera, points) if rng.random() < 0.5 else 1.0
    stretch *= float(rng.normal(1, 0.05))
    camera = Camera(camera.matrix * rng.normal(1, 0.025, (2, 3)), camera.shift + rng.normal(0, 0.04, 2) * camera.scale)
    slip = float(np.clip(rng.normal(*SLIP[:2]), *SLIP[2:])) * _RIDGE
    surface = shell(family.bulge, round(float(rng.uniform(*family.height)) * 25) / 25, hangs=family.hangs)
    surface = replace(surface, points=stretched(surface.points, stretch))
    angle, grown = np.deg2rad(rng.normal(0, 3)), float(np.exp(rng.normal(0, 0.06)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / grown
    middle = np.array([0.0, 0.9])
    place = middle + np.array([rng.normal(0, 0.04), slip])
    cover, detail = _read(drawing, surface, np.column_stack([turn, middle - turn @ place]))

    pasted = rng.random() < 0.12  # a template laid on as it is, as other tools do
    depth = 0.0 if pasted else float(rng.uniform(0, 0.8))
    sun = np.array([rng.normal(0, 0.6), rng.normal(-0.4, 0.5), -1.0])
    lit = surface.normals @ (sun / np.linalg.norm(sun)).astype(np.float32)
    usual = float((lit * cover).sum() / max(float(cover.sum()), 1e-6))
    fabric = (1 + rng.uniform(0.3, 1.3) * (detail - 1)) * (1 + depth * (lit - usual))
    layers = splat(surface, camera, cover, fabric.astype(np.float32), size)
    straps = _straps(family, drawing, camera, slip, size, float(rng.uniform(1.0, 3.2)) * max(size) / 48)

    area = (size[1], size[0])
    shown, values, bands = (
        cv2.resize(layer, area, interpolation=cv2.INTER_AREA).astype(np.float32)
        for layer in (layers.cover, layers.fabric, straps)
    )
    reason = _refusal(shown, points, camera)
    if reason is not None:
        return reason
    tone = None
    if like_skin:
        tone = float((face * shown).sum() / shown.sum() * rng.uniform(0.88, 1.12))
    return _blend(face, (shown, values, bands), family, rng, tone, pasted=pasted)


def _stretch(camera: Camera, points: F32) -> float:
    """How much longer than the mean this face is from the nose's tip to the chin."""
    x, y, z = MEAN_HEAD["chin"]
    mean = camera.project(np.array([x, y, z]))
    per = camera.matrix[:, 1] * (CHIN - 0.5)
    return float(np.clip(1 + (points[POINT["chin"]] - mean) @ per / max(float(per @ per), 1e-6), 0.8, 1.35))


def _refusal(cover: F32, points: F32, camera: Camera) -> str | None:
    share = float(cover.mean())
    if share < 0.06:
        return "small"
    if share > 0.8:
        return "large"
    left, right = eye_centres(points)
    eyes = [left, right]
    if turned(camera) > FAR_EYE:
        eyes = [left if camera.away[0] > 0 else right]
    for eye in eyes:
        x, y = np.clip(np.round(eye).astype(int), 0, (cover.shape[1] - 1, cover.shape[0] - 1))
        if cover[y, x] > 0.3:
            return "eyes"
    return None


def _blend(
    face: U8,
    layers: tuple[F32, F32, F32],
    family: Family,
    rng: np.random.Generator,
    tone: float | None,
    *,
    pasted: bool,
) -> U8:
    """Mix face, straps and mask: tone (by lot where none is given), the face's own light, shadow, soft edges, noise."""
    cover, values, bands = layers
    base = face.astype(np.float32)
    if tone is None:
        low, high = family.tone if rng.random() < 0.6 else (10, 248)
        tone = rng.uniform(low, high)
        if not pasted and rng.random() < 0.7:
            tone *= float(np.clip(np.percentile(face, 90) / 200, 0.4, 1.1))
    strength = 0.0 if pasted else rng.uniform(0, 0.9)
    grey = tone * values / np.maximum(cover, 1e-3) * _light(base, cover) ** strength
    soft = 0.0 if pasted else rng.uniform(0, 0.8) * max(face.shape) / 48
    if soft > 0.2:  # a translucent edge: the fabric thins out, or the camera blurs it
        wide = cv2.GaussianBlur(cover, (0, 0), soft)
        grey = cv2.GaussianBlur(grey * cover, (0, 0), soft) / np.maximum(wide, 1e-3)
        cover = wide.astype(np.float32)
    cover = cover * (1.0 if rng.random() < 0.85 else rng.uniform(0.8, 1.0))
    shade = 0.0 if pasted else rng.uniform(0, 0.5)
    base = base * (1 - shade * cv2.GaussianBlur(cover, (0, 0), 0.04 * max(face.shape)))
    loops = bands * (1 - cover) * (rng.uniform(0.3, 1.0) if rng.random() < 0.8 else 0.0)
    base = base * (1 - loops) + float(np.clip(tone * rng.uniform(0.6, 1.4), 8, 250)) * loops
    grey = grey + rng.normal(0, abs(rng.normal(0, 2.5)), face.shape)
    made: U8 = np.clip(np.round(base * (1 - cover) + grey * cover), 0, 255).astype(np.uint8)
    return made


@dataclass(frozen=True, slots=True)
class WornSet:
    """Faces with masks of some families."""

    images: U8
    """(N, 48, 48)."""
    index: NDArray[np.int32]
    """(N,) row of the face in its data set."""
    kind: NDArray[np.uint8]
    """(N,) place of the family in `FAMILIES`."""
    turned: F32
    """(N,) degrees by which the head is turned."""

    def save(self, path: Path) -> None:
        """Write the four arrays as a compressed .npz, as `load_rendered` reads them."""
        save_arrays(path, images=self.images, index=self.index, kind=self.kind, turned=self.turned)


_Job = tuple["NDArray[np.int64]", "U8", "F32", int, tuple[str, ...], range, float]
_Done = tuple["U8", "NDArray[np.int32]", "NDArray[np.uint8]", "F32"]


def _work(job: _Job) -> _Done:
    rows, faces, points, seed, names, variants, skin_share = job
    cv2.setNumThreads(1)
    order = tuple(FAMILIES)
    images, index, kinds, angles = [], [], [], []
    for row, face, marks in zip(rows, faces, points, strict=True):
        rng = np.random.default_rng([seed, int(row)])
        like_skin = np.random.default_rng([seed, int(row), 1]).random() < skin_share
        for _ in range(_TRIES):
            name = str(rng.choice(names))
            made = wear(face, marks, name, int(rng.choice(variants)), rng, like_skin=like_skin)
            if not isinstance(made, str):
                images.append(made)
                index.append(int(row))
                kinds.append(order.index(name))
                angles.append(turned(find_camera(marks)))
                break
    return (np.array(images, np.uint8).reshape(-1, *faces.shape[1:]), np.array(index, np.int32),
            np.array(kinds, np.uint8), np.array(angles, np.float32))  # fmt: skip


def render_worn(
    images: U8,
    rows: NDArray[np.int64],
    marks: Landmarks,
    seed: int,
    *,
    never_seen: bool = False,
    test: bool = False,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> WornSet:
    """Put a mask on each of the given faces on which it sits.

    Args:
        images: u8 (N, 48, 48), the whole data set.
        rows: which of them.
        marks: landmarks of the whole data set.
        seed: another seed, another rendering.
        never_seen: of the families that are never trained on, else of the others.
        test: drawings that are never trained on; the never-seen families have no others.
        processes: worker processes.
        progress: called with (faces done, faces in all).

    """
    seen = rows[marks.found[rows]]
    names = NEVER_SEEN if never_seen else TRAINED
    variants = TEST_VARIANTS if test or never_seen else range(VARIANTS)
    skin_share = 0.0 if test or never_seen else SKIN_SHARE

    def jobs() -> Iterator[_Job]:
        for start in range(0, len(seen), _CHUNK):
            some = seen[start : start + _CHUNK]
            yield some, images[some], marks.points[some], seed, names, variants, skin_share

    parts: list[_Done] = []
    with get_context("spawn").Pool(processes) as pool:
        for part in pool.imap(_work, jobs()):
            parts.append(part)
            progress(min(len(parts) * _CHUNK, len(seen)), len(seen))
    stacked = [np.concatenate([part[n] for part in parts]) for n in range(4)]
    return WornSet(stacked[0], stacked[1], stacked[2], stacked[3])

"""The bundle's detector: BlazeFace quantised on real photos, and how far its boxes are from the float network's."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.bundle.manifest import ANSWERS, AnchorGrid
from edge.errors import BundleError, SourceError
from edge.vision.detect.blazeface import BlazeFace, letterbox
from edge.vision.detect.overlap import centred, iou
from edge_quantize.bundling import blazeface
from edge_quantize.bundling.refit import fitted
from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.evaluation import score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8

SEED: Final = 20261121
PHOTOS: Final = 96
"""Photos on which the int8 kernels are fitted."""
COMPARED: Final = 160
"""Other photos on which its boxes are compared."""
ZOOMS: Final = (1.0, 0.75, 0.5, 0.35)
"""How much of the network's input a photo fills: faces of all sizes."""
LEAST_IOU: Final = 0.93
"""Mean intersection over union with the float network's boxes that int8 must reach."""
SAME: Final = 0.5
"""Boxes of the two networks are the same face from this intersection over union on."""
SURE: Final = 0.85
"""Least score of the one face in a golden picture: another kernel's rounding does not lose it."""
LEAST_GOLDEN: Final = 2


def photo_files(count: int, rng: np.random.Generator) -> list[Path]:
    """Photos of faces with and without masks, longest side ≤ 256, drawn by lot. Raises SourceError when too few."""
    folder = data_root() / "masks_real"
    paths = sorted(folder.glob("*/*.jpg"))
    if len(paths) < count:
        msg = f"{folder}: {len(paths)} photos (masked/*.jpg, unmasked/*.jpg), {count} are needed: set EDGE_DATA"
        raise SourceError(msg)
    return [paths[row] for row in rng.permutation(len(paths))[:count]]


def photos(count: int) -> list[U8]:
    """`photo_files` by the seed, as BGR, each on black, see `ZOOMS`. The first `PHOTOS` are those fitted on."""
    rng = np.random.default_rng(SEED)
    out = []
    for path in photo_files(count, rng):
        photo: U8 = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
        rim = round(max(photo.shape[:2]) * (1 / float(rng.choice(ZOOMS)) - 1) / 2)
        bordered: U8 = cv2.copyMakeBorder(photo, rim, rim, rim, rim, cv2.BORDER_CONSTANT).astype(np.uint8, copy=False)
        out.append(bordered)
    return out


def float_blazeface(content: bytes, *, min_face: int = 36, tiles: int | None = None) -> BlazeFace:
    """The device's detector on the wheel's own float network."""
    interpreter = score.open_interpreter(content, delegate=True)
    (given,) = interpreter.get_input_details()
    asked = sorted(interpreter.get_output_details(), key=lambda one: int(one["shape"][-1]))

    def answer(images: U8) -> F32:
        rows = []
        for image in images:
            interpreter.set_tensor(given["index"], image[None, ..., ::-1].astype(np.float32) / 127.5 - 1)
            interpreter.invoke()
            rows.append(np.concatenate([interpreter.get_tensor(one["index"])[0] for one in asked], axis=-1))
        return np.stack(rows)

    grids = [AnchorGrid(cells=cells, each=each, step=[1.0] * ANSWERS, zero=[0.0] * ANSWERS)
             for cells, each in ((16, 2), (8, 6))]  # fmt: skip
    return BlazeFace(answer, grids, min_face=min_face, tiles=tiles)  # type: ignore[arg-type]  # floats decode alike


def int8_blazeface(made: dict[str, Any], flat: bytes, *, min_face: int = 36, tiles: int | None = None) -> BlazeFace:
    """The device's detector on an int8 network and its manifest entry, with a bare interpreter."""
    interpreter = score.open_interpreter(flat)
    grids = [AnchorGrid.model_validate(grid) for grid in made["anchors"]]
    return BlazeFace(lambda images: score.outputs(interpreter, images), grids, min_face=min_face, tiles=tiles)


def agreement(exact: BlazeFace, coarse: BlazeFace, images: Sequence[U8]) -> dict[str, Any]:
    """How far the boxes of two detectors are apart.

    Returns:
        `photos`, `faces` that `exact` finds in them, those `lost` and `added` by `coarse`, and of those that both find
        the mean (`iou`) and the 5th percentile (`iou_p5`) of intersection over union.

    """
    faces = lost = added = 0
    shared: list[float] = []
    for image in images:
        a, b = (centred(d.detect(image, thorough=True)) for d in (exact, coarse))
        same = iou(a, b)
        best = same.max(axis=1, initial=0.0)
        faces += len(a)
        lost += int((best < SAME).sum())
        added += int((same.max(axis=0, initial=0.0) < SAME).sum())
        shared += best[best >= SAME].tolist()
    return {"photos": len(images), "faces": faces, "lost": lost, "added": added,
            "iou": round(float(np.mean(shared)), 4), "iou_p5": round(float(np.percentile(shared, 5)), 4)}  # fmt: skip


def entry(source: Path, file: Path, images: Sequence[U8]) -> dict[str, Any]:
    """Quantise the wheel's network `source` on BGR images of any size into `file`; its manifest entry."""
    content = source.read_bytes()
    flat = blazeface.quantised(content, [letterbox(image)[0] for image in images], fitted)
    given, answer = score.quantisation(score.open_interpreter(flat))
    file.write_bytes(flat)
    params, macs = blazeface.cost(content)
    return {
        "role": "detector", "file": file.name, "sha256": hashlib.sha256(flat).hexdigest(), "edgetpu": None,
        "source": None, "input": given, "output": {"kind": "anchors", **answer}, "params": params, "macs": macs,
        "metrics": {}, "anchors": blazeface.grids(answer["scale"], answer["zero_point"]),
        "license": "Apache-2.0: weights of MediaPipe's BlazeFace (short range), from the wheel mediapipe 0.10.21",
    }  # fmt: skip


def golden(made: dict[str, Any], flat: bytes) -> dict[str, NDArray[Any]]:
    """Pictures uint8 (N, 128, 128, 3) with one sure face, and int8 answers (N, 896, 17), as `golden.npz` names them.

    They are the demo's portraits, in the public domain. Raises BundleError when the network is sure of fewer than two.
    """
    detector = int8_blazeface(made, flat, min_face=1, tiles=0)
    kept = []
    for file in sorted(files("edge.demo_material").iterdir(), key=str):
        if file.name.endswith(".png"):
            portrait = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            picture = letterbox(portrait.astype(np.uint8, copy=False))[0]
            if [box.score > SURE for box in detector.detect(picture)] == [True]:
                kept.append(picture)
    if len(kept) < LEAST_GOLDEN:
        msg = f"the detector is sure of {len(kept)} of the demo's portraits, {LEAST_GOLDEN} golden ones are needed"
        raise BundleError(msg)
    pictures = np.stack(kept)
    return {"detector_chips": pictures, "detector_outputs": score.outputs(score.open_interpreter(flat), pictures)}


def make(source: Path, file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Make the bundle's detector from the wheel's network `source`; its manifest entry and its golden answers.

    Raises:
        SourceError: the photos are missing.
        BundleError: its boxes are too far from the float network's, or it is not sure of the golden ones.

    """
    images = photos(PHOTOS + COMPARED)
    made = entry(source, file, images[:PHOTOS])
    exact = float_blazeface(source.read_bytes(), min_face=20, tiles=0)
    flat = file.read_bytes()
    figures = agreement(exact, int8_blazeface(made, flat, min_face=20, tiles=0), images[PHOTOS:])
    if figures["iou"] < LEAST_IOU:
        msg = f"{file.name}: boxes share {figures['iou']:.3f} of their union with float's, {LEAST_IOU} needed"
        raise BundleError(msg)
    return {**made, "metrics": {"boxes_against_float": figures}}, golden(made, flat)

"""Which detector a configuration gets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.bundle.golden import judge_answers
from edge.errors import BundleError
from edge.vision.detect.overlap import centred, iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle
    from edge.inference.protocol import Backend
    from edge.types import F32
    from edge.vision.detect import Detector
    from edge.vision.detect.schedule import Budget

ROLE: Final = "detector"
KINDS: Final = ("auto", "haar", "blazeface", "hog")
GOLDEN_IOU: Final = 0.8
"""Least intersection over union of a box in a golden picture with the one found there when the bundle was made."""


def chosen_kind(bundle: Bundle, kind: str) -> str:
    """`kind`, one of `KINDS`; for `auto` it is `blazeface` where the bundle has one, else `haar`."""
    if kind != "auto":
        return kind
    return "blazeface" if bundle.has_detector else "haar"


def detector_roles(bundle: Bundle, kind: str) -> tuple[str, ...]:
    """Models that a backend must run for a detector of this kind."""
    return (ROLE,) if chosen_kind(bundle, kind) == "blazeface" else ()


def describe(kind: str, backend: str) -> str:
    """Which detector finds faces, and on what: `blazeface on edgetpu`, `haar on cpu`."""
    return f"{kind} on {backend if kind == 'blazeface' else 'cpu'}"


def open_detector(
    bundle: Bundle,
    kind: str,
    backend: Backend,
    *,
    min_face: int = 36,
    rotations: Sequence[float] = (0.0, -35.0, 35.0),
    tiles: int | None = None,
    budget_ms: Budget = None,
) -> Detector:
    """A detector for one camera: it remembers where it found faces.

    Args:
        bundle: has the role `detector` where `kind` is `blazeface`.
        kind: one of `KINDS`, see `chosen_kind`.
        backend: runs the models of `detector_roles`; the other detectors run on the CPU.
        min_face: smallest face in frame pixels.
        rotations: head rolls to search in degrees (`haar`).
        tiles: rows of squares searched besides the whole frame (`blazeface`); None: as many as `min_face` needs.
        budget_ms: time to search a frame of a stream (`blazeface`); None: whatever it takes, so that a replay's answers
            do not depend on the machine's speed.

    Raises:
        BackendError: an OpenCV without cascades.
        ConfigError: `hog` without dlib.
        BundleError: the bundle has no detector.

    """
    kind = chosen_kind(bundle, kind)
    if kind == "blazeface":
        from edge.vision.detect.blazeface import BlazeFace

        anchors = bundle.entry(ROLE).anchors
        answer = partial(backend.outputs, ROLE)
        return BlazeFace(answer, anchors, min_face=min_face, tiles=tiles, budget_ms=budget_ms)
    if kind == "hog":
        from edge.vision.detect.hog import Hog

        return Hog(min_face=min_face)
    from edge.vision.detect.haar import Haar

    return Haar(min_face=min_face, rotations=rotations)


def judge(bundle: Bundle, role: str, backend: str, got: NDArray[np.int8], wanted: NDArray[np.int8]) -> None:
    """The `Judge` of any role: a detector's outputs (N, A, 17) by the boxes that they mean in the golden pictures.

    Answers themselves may differ: thirty roundings in a row lie far apart where there is no face. Raises BundleError
    unless there are as many boxes as when the bundle was made, at the same places.
    """
    if role != ROLE:
        judge_answers(bundle, role, backend, got, wanted)
        return
    for answer, kept in zip(got, wanted, strict=True):
        found, golden = _boxes(bundle, answer), _boxes(bundle, kept)
        worst = float(iou(golden, found).max(axis=1, initial=0.0).min(initial=1.0))
        if len(golden) != len(found) or worst < GOLDEN_IOU:
            msg = (
                f"{bundle.path(ROLE)}: computes wrongly on {backend}: {len(found)} boxes for {len(golden)} of a golden "
                f"picture, which share {worst:.2f} of their union ({GOLDEN_IOU} needed): install the bundle again, "
                "or choose another accelerator"
            )
            raise BundleError(msg)


def _boxes(bundle: Bundle, answer: NDArray[np.int8]) -> F32:
    from edge.vision.detect.blazeface import BlazeFace
    from edge.vision.detect.regions import SIDE

    anchors = bundle.entry(ROLE).anchors
    detector = BlazeFace(lambda _: answer[None], anchors, min_face=1, tiles=0, clear_from=0)  # one picture, one answer
    return centred(detector.detect(np.zeros((SIDE, SIDE), np.uint8)))

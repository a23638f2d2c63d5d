"""Which detector a configuration gets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edge.bundle import golden_answers
from edge.detect.overlap import centred, iou
from edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.detect import Detector
    from edge.types import F32, U8

ROLE: Final = "detector"
KINDS: Final = ("auto", "haar", "blazeface", "hog")
GOLDEN_IOU: Final = 0.8
"""Least intersection over union of a box in a golden picture with the one found there when the bundle was made."""


def open_detector(
    bundle: Bundle,
    kind: str,
    *,
    min_face: int = 36,
    rotations: Sequence[float] = (0.0, -35.0, 35.0),
    tiles: int | None = None,
) -> Detector:
    """A detector for one camera: it remembers where it found faces.

    Args:
        bundle: has the role `detector` where `kind` is `blazeface`; its network runs on the CPU.
        kind: one of `KINDS`; `auto` is `blazeface` where the bundle has one, else `haar`.
        min_face: smallest face in frame pixels.
        rotations: head rolls to search in degrees (`haar`).
        tiles: rows of squares searched besides the whole frame (`blazeface`); None: as many as `min_face` needs.

    Raises:
        BackendError: no TFLite runtime, or an OpenCV without cascades.
        ConfigError: `hog` without dlib.
        BundleError: the bundle has no detector, or one that is damaged or computes wrongly.

    """
    if kind == "auto":
        kind = "blazeface" if bundle.has_detector else "haar"
    if kind == "blazeface":
        from edge.backend.cpu import CpuBackend
        from edge.detect.blazeface import BlazeFace

        # Its layers are small: two threads wait for each other on a busy machine, 90 ms for 12.
        answer = partial(CpuBackend(bundle, (ROLE,), threads=1).outputs, ROLE)
        check_golden_boxes(bundle, answer)
        return BlazeFace(answer, bundle.entry(ROLE).anchors, min_face=min_face, tiles=tiles)
    if kind == "hog":
        from edge.detect.hog import Hog

        return Hog(min_face=min_face)
    from edge.detect.haar import Haar

    return Haar(min_face=min_face, rotations=rotations)


def check_golden_boxes(bundle: Bundle, answer: Callable[[U8], NDArray[np.int8]]) -> None:
    """Find the faces of the bundle's golden pictures with a network: uint8 BGR (N, 128, 128, 3) → int8 (N, A, 17).

    Answers themselves may differ: thirty roundings in a row lie far apart where there is no face. Raises BundleError
    unless it finds as many boxes as when the bundle was made, at the same places.
    """
    pictures, wanted = golden_answers(bundle, (ROLE,))[ROLE]
    for picture, kept in zip(pictures, wanted, strict=True):
        golden, found = (_boxes(bundle, one, picture) for one in (lambda _, kept=kept: kept[None], answer))
        worst = float(iou(golden, found).max(axis=1, initial=0.0).min(initial=1.0))
        if len(golden) != len(found) or worst < GOLDEN_IOU:
            msg = (
                f"{bundle.path(ROLE)}: computes wrongly: {len(found)} boxes for {len(golden)} of a golden picture, "
                f"which share {worst:.2f} of their union ({GOLDEN_IOU} needed): install the bundle again"
            )
            raise BundleError(msg)


def _boxes(bundle: Bundle, answer: Callable[[U8], NDArray[np.int8]], picture: U8) -> F32:
    from edge.detect.blazeface import BlazeFace

    return centred(BlazeFace(answer, bundle.entry(ROLE).anchors, min_face=1, tiles=0).detect(picture))

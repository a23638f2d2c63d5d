"""Which detector a configuration gets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.bundle import Bundle
    from edge.detect import Detector

KINDS: Final = ("haar", "blazeface", "hog")


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
        kind: one of `KINDS`.
        min_face: smallest face in frame pixels.
        rotations: head rolls to search in degrees (`haar`).
        tiles: rows of squares searched besides the whole frame (`blazeface`); None: as many as `min_face` needs.

    Raises:
        BackendError: what the detector needs is not installed.
        BundleError: the bundle has no detector, or a damaged one.

    """
    if kind == "blazeface":
        from edge.backend.cpu import CpuBackend
        from edge.detect.blazeface import BlazeFace

        role = "detector"
        # Its layers are small: two threads wait for each other on a busy machine, 90 ms for 12.
        answer = partial(CpuBackend(bundle, (role,), threads=1).outputs, role)
        return BlazeFace(answer, bundle.entry(role).anchors, min_face=min_face, tiles=tiles)
    if kind == "hog":
        from edge.detect.hog import Hog

        return Hog(min_face=min_face)
    from edge.detect.haar import Haar

    return Haar(min_face=min_face, rotations=rotations)

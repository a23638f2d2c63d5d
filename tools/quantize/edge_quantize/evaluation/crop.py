"""`edge-quantize crop`: which square around a detector's box the models read best.

Faces of PublicTest half A are set into scenes, found by the device's detector, and cut by every crop of a grid. The
constants of the manifest (`preprocess.crop`) come from here.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.bundle.manifest import load_bundle
from edge.errors import SourceError
from edge.inference.cpu import CpuBackend
from edge.types import CropSpec
from edge.vision.detect.choose import detector_roles, open_detector
from edge_quantize.evaluation import in_scene, metrics, robustness
from edge_quantize.evaluation.chips import fer2013
from edge_quantize.progress import bar

if TYPE_CHECKING:
    from pathlib import Path

SCALES: Final = (0.85, 0.9, 1.0, 1.1, 1.2, 1.3)
SHIFTS: Final = (-0.15, -0.1, -0.05, 0.0, 0.05)


def sweep(folder: Path, kind: str = "haar", faces: int = in_scene.FACES) -> dict[str, Any]:
    """Accuracy of the unmasked net by crop.

    Args:
        folder: a bundle.
        kind: of the detector.
        faces: how many faces of half A are set into scenes.

    Returns:
        `detector`, `recall`, `shipped` (the manifest's own crop: `scale`, `dy`, share), `grid` (a list of the same with
        its `metrics.paired_loss` against the shipped crop), and `best`, the one of the grid that is read best.

    Raises:
        BundleError: the bundle is damaged.
        BackendError: no runtime for the detector.
        ConfigError: dlib is not installed.
        SourceError: data or clips are missing, or no face was found.

    """
    bundle, fer = load_bundle(folder), fer2013()
    detector = open_detector(bundle, kind, CpuBackend(bundle, detector_roles(bundle, kind)))
    half_a, _ = fer.public_halves()
    rows = np.sort(np.random.default_rng(in_scene.SEED).permutation(half_a)[:faces])
    shipped = bundle.crop(detector.kind)
    crops = [shipped, *(CropSpec(scale, dy) for scale, dy in product(SCALES, SHIFTS))]
    with bar("faces in scenes") as show:
        seen = in_scene.look(fer.images[rows], in_scene.backgrounds(), detector, crops, show)
    if not seen.found.any():
        msg = f"{detector.kind} found none of {faces} faces: give more with --faces"
        raise SourceError(msg)
    truth = fer.labels[rows[seen.found]].astype(np.int64)
    right = []
    with bar("crops") as show:
        for k, chips in enumerate(seen.chips):
            right.append(robustness.answers(bundle, "fer_unmasked", chips, lambda _done, _total: None) == truth)
            show(k + 1, len(crops))
    grid = [
        {"scale": crop.scale, "dy": crop.dy, **metrics.share(one), **metrics.paired_loss(right[0], one)}
        for crop, one in zip(crops[1:], right[1:], strict=True)
    ]
    return {
        "detector": detector.kind,
        "recall": metrics.share(seen.found),
        "shipped": {"scale": shipped.scale, "dy": shipped.dy, **metrics.share(right[0])},
        "grid": grid,
        "best": min(grid, key=lambda one: one["loss_points"]),
    }

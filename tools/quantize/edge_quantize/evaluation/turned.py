"""The gate on masks as they sit on turned heads, and on families of masks that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.errors import SourceError
from edge_quantize.datasets.fer2013 import load_arrays
from edge_quantize.evaluation import metrics
from edge_quantize.masks.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8

SETS: Final = {"worn": "worn-public.npz", "never_seen": "worn-never-seen.npz"}
"""Faces of PublicTest with masks of the families that are trained on, in drawings that are not, and of the others."""
ANGLES: Final = (10.0, 25.0)
"""Degrees between heads that look ahead, half turned and turned ones."""


def load_sets(folder: Path) -> dict[str, dict[str, NDArray[np.generic]]]:
    """`images`, `kind` and `turned` of each of `SETS`. Raises SourceError that says how to make one that is missing."""
    found = {}
    for name, file in SETS.items():
        try:
            found[name] = load_arrays(folder / file, ("images", "kind", "turned"))
        except SourceError as error:
            msg = f"{error}: make it with 'edge-quantize masks'"
            raise SourceError(msg) from error
    return found


def figures(
    sets: dict[str, dict[str, NDArray[np.generic]]], ask: Callable[[U8], F32], bare_right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Shares for each of `sets`.

    Args:
        sets: what `load_sets` gave.
        ask: the gate: chips u8 (N, 48, 48) to probabilities (N, 2).
        bare_right: (P,) whether it was right about the faces of PublicTest without a mask.

    Returns:
        By set: `found`, the share of masked faces found; `told_apart`, that of these and the bare ones together;
        `by_family` and `by_angle`, the share found.

    """
    names = tuple(FAMILIES)
    out: dict[str, Any] = {}
    for name, made in sets.items():
        right = ask(made["images"].astype(np.uint8, copy=False)).argmax(axis=1) == 1
        turn = np.searchsorted(ANGLES, made["turned"].astype(np.float64))
        words = (f"ahead, within {ANGLES[0]:.0f} degrees", "half turned", f"turned, past {ANGLES[1]:.0f} degrees")
        out[name] = {
            "found": metrics.share(right),
            "told_apart": metrics.share(np.concatenate([bare_right, right])),
            "by_family": {names[k]: metrics.share(right[made["kind"] == k]) for k in np.unique(made["kind"])},
            "by_angle": {word: metrics.share(right[turn == k]) for k, word in enumerate(words)},
        }
    return out

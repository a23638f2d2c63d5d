"""Gate and masked expression net on masks as they sit on turned heads, and on families of masks never seen."""

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
    """`images`, `index`, `kind` and `turned` of each of `SETS`. Raises SourceError: what is missing, how to make it."""
    found = {}
    for name, file in SETS.items():
        try:
            found[name] = load_arrays(folder / file, ("images", "index", "kind", "turned"))
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
    out: dict[str, Any] = {}
    for name, made in sets.items():
        right = ask(made["images"].astype(np.uint8, copy=False)).argmax(axis=1) == 1
        told_apart = metrics.share(np.concatenate([bare_right, right]))
        out[name] = {"found": metrics.share(right), "told_apart": told_apart, **_parts(right, made)}
    return out


def expressions(
    sets: dict[str, dict[str, NDArray[np.generic]]],
    ask: Callable[[U8], F32],
    labels: U8,
    flat: tuple[NDArray[np.int64], NDArray[np.bool_]],
) -> dict[str, Any]:
    """How often the masked expression net is right, for each of `sets`.

    Args:
        sets: what `load_sets` gave.
        ask: the net: chips u8 (N, 48, 48) to probabilities (N, 7).
        labels: (R,) of the rows that `index` counts.
        flat: rows of the faces with flat masks, ascending, and whether it was right about them.

    Returns:
        By set: the share that is right, with `by_family` and `by_angle`; `paired`, that of the faces which take a flat
        mask too, and `flat`, that of these in flat masks.

    """
    out: dict[str, Any] = {}
    for name, made in sets.items():
        index = made["index"].astype(np.int64)
        right = ask(made["images"].astype(np.uint8, copy=False)).argmax(axis=1) == labels[index]
        paired, same = right[np.isin(index, flat[0])], flat[1][np.isin(flat[0], index)]
        out[name] = {
            **metrics.share(right),
            "paired": metrics.share(paired),
            "flat": metrics.share(same),
            **_parts(right, made),
        }
    return out


def _parts(right: NDArray[np.bool_], made: dict[str, NDArray[np.generic]]) -> dict[str, Any]:
    """Shares of what is right by family of masks and by how far the head is turned."""
    names = tuple(FAMILIES)
    turn = np.searchsorted(ANGLES, made["turned"].astype(np.float64))
    words = (f"ahead, within {ANGLES[0]:.0f} degrees", "half turned", f"turned, past {ANGLES[1]:.0f} degrees")
    return {
        "by_family": {names[k]: metrics.share(right[made["kind"] == k]) for k in np.unique(made["kind"])},
        "by_angle": {word: metrics.share(right[turn == k]) for k, word in enumerate(words)},
    }

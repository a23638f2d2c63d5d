"""Pictures that show the same: copies saved anew, mirrored, or neighbours in a video, which no split may part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIDE: Final = 16
ALIKE: Final = 0.98
"""Correlation of two thumbnails from which they show the same. Of FER2013's 2,618 pairs that share a `dup_group` 2,523
reach it, and 484 pairs that share none, most of them the data's own placeholders."""
_ROWS: Final = 1024


def near_copies(
    chips: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda _done, _total: None
) -> NDArray[np.int32]:
    """Group of each chip, int32 (N,), of chips u8 (N, 48, 48): the row of its first copy, near copy or mirror image.

    Every pair is compared: 32,000 chips take some twenty seconds of a core, ten times as many a hundred times as long.
    """
    plain, mirrored = _thumbnails(chips), _thumbnails(chips[:, :, ::-1])
    group = list(range(len(chips)))

    def root(row: int) -> int:
        while group[row] != row:
            group[row] = group[group[row]]
            row = group[row]
        return row

    for start in range(0, len(chips), _ROWS):
        block = plain[start : start + _ROWS]
        for others in (plain, mirrored):
            one, other = np.nonzero(block @ others[start:].T >= ALIKE)
            for a, b in zip((one + start).tolist(), (other + start).tolist(), strict=True):
                first, second = sorted((root(a), root(b)))
                group[second] = first
        progress(min(start + _ROWS, len(chips)), len(chips))
    return np.array([root(row) for row in range(len(chips))], np.int32)


def _thumbnails(chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Float32 (N, SIDE²) of mean 0 and length 1, so that a product is a correlation; a flat picture is like none."""
    step = chips.shape[1] // SIDE
    small = chips.reshape(len(chips), SIDE, step, SIDE, step).mean(axis=(2, 4), dtype=np.float32)
    flat = small.reshape(len(chips), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > 0, flat / np.maximum(length, 1e-9), 0).astype(np.float32)

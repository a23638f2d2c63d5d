"""Chips with their classes, as training takes them in and is watched by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """`chips` uint8 (N, 48, 48) and their true class `labels` int64 (N,)."""

    chips: U8
    labels: I64


@dataclass(frozen=True, slots=True)
class Samples:
    """Chips to train on with soft `targets` float32 (N, classes), and the sets to watch.

    `row` int64 (N,) is the FER2013 row of a chip, -1 for any other face. `validation` is held out of train;
    `tests` are scored once, at the end: PublicTest or what is made of it, and held-out real photos.
    """

    chips: U8
    targets: F32
    row: I64
    validation: Labelled
    tests: dict[str, Labelled]

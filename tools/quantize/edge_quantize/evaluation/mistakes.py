"""The answers that a model was surest of and wrong, to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.types import EMOTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import F32, U8

SHOWN: Final = 48


@dataclass(frozen=True, slots=True)
class Mistake:
    """One face, what it shows by its label, what was answered and how surely."""

    face: U8
    """(48, 48)."""
    true: str
    said: str
    probability: float


def surest(faces: U8, truth: NDArray[np.int64], probabilities: F32, shown: int = SHOWN) -> list[Mistake]:
    """Pick the surest mistakes, surest first.

    Args:
        faces: u8 (N, 48, 48).
        truth: (N,) class numbers.
        probabilities: float32 (N, 7).
        shown: how many at most.

    """
    said = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(said != truth)
    order = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:shown]
    return [Mistake(faces[k], EMOTIONS[truth[k]], EMOTIONS[said[k]], float(probabilities[k].max())) for k in order]

"""Sums of released cells, and what both kinds of band are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from edge.types import CELLS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Z: Final = 1.959963984540054
"""Standard deviations on either side that hold 95 %."""
WIDTH: Final = len(CELLS)
SIZE: Final = len(ROUTES) * WIDTH
HAPPY: Final = tuple(i for i in range(SIZE) if CELLS[i % WIDTH] == "happy")
CLASSES: Final = tuple(i for i in range(SIZE) if CELLS[i % WIDTH] != "uncertain")
_of_happy, _of_classes = itemgetter(*HAPPY), itemgetter(*CLASSES)


@dataclass(frozen=True, slots=True)
class Part:
    """Sums over some period, under one pair of expression models and one epsilon.

    Args:
        unmasked: digest (`sha256:…`) of the model that filled the first eight cells; None: no model was asked.
        masked: the same for the last eight.
        epsilon: of the noise of each draw; None: no noise.
        cells: 16 sums of released cells, the eight of `edge.types.CELLS` unmasked, then masked.
        draws: 16 sums of the noise draws in them.

    """

    unmasked: str | None
    masked: str | None
    epsilon: float | None
    cells: tuple[int, ...]
    draws: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the lengths. Raises ValueError."""
        if len(self.cells) != SIZE or len(self.draws) != SIZE:
            msg = f"{len(self.cells)} cells and {len(self.draws)} draws, {SIZE} of each are a part"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Band:
    """A share and its 95 % band: 0 ≤ low ≤ index ≤ high ≤ 1."""

    index: float
    low: float
    high: float


def counted(parts: Iterable[Part]) -> tuple[int, int]:
    """(happy, n): released cells of the seven classes on both routes; `uncertain` is left out of both."""
    happy = n = 0
    for part in parts:
        here, all_of_it = votes(part.cells)
        happy += here
        n += all_of_it
    return happy, n


def votes(cells: Sequence[int]) -> tuple[int, int]:
    """Of 16 numbers, the sum of the happy ones, and of all but the uncertain ones."""
    return sum(_of_happy(cells)), sum(_of_classes(cells))


@lru_cache(maxsize=1024)
def draw_variance(epsilon: float | None) -> float:
    """Variance of one draw of P(x) ∝ exp(−epsilon·|x|): 2q/(1 − q)² with q = exp(−epsilon); 0 for None.

    In decimals, whose exponential is the same everywhere: the C library's differs in its last bit.
    """
    if epsilon is None:
        return 0.0
    context = Context(prec=60)
    q = context.exp(context.minus(Decimal(epsilon)))
    rest = context.subtract(Decimal(1), q)
    return float(context.divide(context.multiply(Decimal(2), q), context.multiply(rest, rest)))


def held_or_none(held: Sequence[int]) -> Sequence[int]:
    """Sixteen sums of what cells may hold back, zeros for `()`. Raises ValueError for another length."""
    if not held:
        return (0,) * SIZE
    if len(held) != SIZE:
        msg = f"{len(held)} held sums, {SIZE} or none are needed"
        raise ValueError(msg)
    return held


def clip(value: float) -> float:
    """Into [0, 1]."""
    return 0.0 if value < 0 else 1.0 if value > 1 else value


def wald(estimate: float, variance: float) -> Band:
    """Estimate ± Z standard errors, all three clipped to [0, 1]."""
    half = Z * math.sqrt(variance)
    return Band(clip(estimate), clip(estimate - half), clip(estimate + half))

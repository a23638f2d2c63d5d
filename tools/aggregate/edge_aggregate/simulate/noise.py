"""Discrete Laplace noise, quickly: by inversion from a table that is exact to 2⁻⁶⁴.

The device draws bit by bit, since what leaks must not depend on rounding. Here nobody is to be protected: only the
distribution counts, and a window's sixteen draws take a few microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal, localcontext
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

DRAWS: Final = 16
"""Cells of a window."""

_WORDS: Final = Struct(f"<{DRAWS}Q")


class Laplace:
    """P(x) ∝ exp(-epsilon·|x|)."""

    def __init__(self, epsilon: float) -> None:
        with localcontext() as context:
            context.prec = 60
            q = (-Decimal(str(epsilon))).exp()
            bound = 1
            while q ** (bound + 1) > Decimal(2) ** -65:
                bound = bound * 2
            scale = Decimal(2) ** 64
            below = [int(scale * q**-k / (1 + q)) for k in range(-bound, 0)]
            above = [int(scale * (1 - q ** (k + 1) / (1 + q))) for k in range(bound)]
        self._table, self._bound = below + above, bound

    def window(self, rng: Random) -> list[int]:
        """Sixteen draws."""
        table, bound = self._table, self._bound
        return [bisect_right(table, word) - bound for word in _WORDS.unpack(rng.randbytes(8 * DRAWS))]

"""Whether a share changed from one period to the next, and which of many changes are to be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_aggregate.statistics.estimates import calibration_variance, estimate, faces
from edge_aggregate.statistics.parts import Z
from edge_aggregate.statistics.shares import inner, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_aggregate.calibration import Correction
    from edge_aggregate.statistics.estimates import Key
    from edge_aggregate.statistics.parts import Part


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before, its 95 % band in [−1, 1], and how likely one as large is where nothing has changed."""

    by: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Change:
    """As read, and corrected (None where a model is unknown)."""

    read: Difference
    corrected: Difference | None

    @property
    def best(self) -> Difference:
        """Corrected where that is known: people who merely look sadder change what is read, and nothing else."""
        return self.read if self.corrected is None else self.corrected


def _difference(by: float, variance: float) -> Difference:
    spread = math.sqrt(variance)
    p = math.erfc(abs(by) / (spread * math.sqrt(2)))
    low, high = (min(max(by + side * Z * spread, -1.0), 1.0) for side in (-1, 1))
    # Twelve digits: the C library's erfc differs between machines in the last one or two of its sixteen.
    return Difference(min(max(by, -1.0), 1.0), low, high, float(f"{p:.12g}"))


def changed(
    before: Sequence[Part],
    after: Sequence[Part],
    tables: Mapping[Key, Correction],
    held: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Change | None:
    """The change from one period to another at the same place; None where either has n ≤ 0.

    Args:
        before: what was released in the first.
        after: what was released in the second.
        tables: corrections by (role, digest). A table used in both is wrong in both alike: only as far as the mix
            of expressions differs does its error count.
        held: of the first and the second, as for `as_read`.

    """
    first, second = share(before, held[0]), share(after, held[1])
    if first is None or second is None:
        return None
    # The variance under which nothing has changed: both periods have the share of both.
    n = first.n + second.n
    p = inner((first.happy + second.happy) / n, n)
    read = _difference(second.happy / second.n - first.happy / first.n, first.variance(p) + second.variance(p))
    one, two = estimate(before, tables, held[0]), estimate(after, tables, held[1])
    if one is None or two is None:
        return Change(read, None)
    error = calibration_variance(faces(two.votes, tables), tables, faces(one.votes, tables))
    return Change(read, _difference(two.value - one.value, math.fsum((one.variance, two.variance, error))))


def discoveries(ps: Sequence[float | None], rate: float = 0.05) -> list[bool]:
    """Which of many changes to show, so that at most a share `rate` of those shown are chance.

    Benjamini and Hochberg (1995): of m tests in ascending order, all up to the last whose p is at most rate · rank / m.
    None was not tested. Raises ValueError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        msg = f"a rate of {rate}: it lies between 0 and 1"
        raise ValueError(msg)
    tested = sorted(p for p in ps if p is not None)
    passed = [p for rank, p in enumerate(tested, 1) if p * len(tested) <= rate * rank]
    return [p is not None and bool(passed) and p <= passed[-1] for p in ps]

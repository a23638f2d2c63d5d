"""Where a period is cut: its whole days, the parts of days at its ends, and what cells hold back there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_aggregate.store.days import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_aggregate.decode import Terms
    from edge_aggregate.periods import Period


@dataclass(frozen=True, slots=True)
class Edge:
    """Part of one UTC day; `cut` at a side that is no midnight, or no midnight that has come."""

    start_ms: int
    end_ms: int
    cut_before: bool
    cut_after: bool

    def hold(
        self,
        held: list[int],
        terms: Mapping[int, Terms],
        under: Sequence[int],
        cells: Iterable[tuple[tuple[int | None, ...], tuple[int, ...]]],
    ) -> None:
        """Add what one device's cells may hold back at the cut sides.

        Args:
            held: for each cell, what is added to.
            terms: all, by id.
            under: the id of those of each of the device's windows here, in the order in which they began.
            cells: for each cell what every window released of it, and the noise draws in that.

        """
        for cell, (released, draws) in enumerate(cells):
            if self.cut_after and released[-1] is None:
                held[cell] += terms[under[-1]].min_count ** 2
            if self.cut_before:
                held[cell] += _from_before(terms, under, released, draws)


def _from_before(
    terms: Mapping[int, Terms], under: Sequence[int], released: Sequence[int | None], draws: Sequence[int]
) -> int:
    """min_count² where the first release may hold some of what was counted before, else 0."""
    for at, count in enumerate(released):
        if count is not None:
            of = terms[under[at]]
            # Without noise a release does not say since when it grew.
            silent = of.mechanism == "none" and of.min_count > 1
            return of.min_count**2 if silent or draws[at] > at + 1 else 0
    return 0


def torn(period: Period, newest_ms: int, kept_from_ms: int) -> bool:
    """Whether it holds a part of a day whose windows were dropped (`retain`): of those, whole days are left alone."""
    return any(edge.start_ms < kept_from_ms for edge in cut(period, newest_ms)[1])


def cut(period: Period, newest_ms: int) -> tuple[range, list[Edge]]:
    """The whole days of a period, and what is left of it. A day that is not over is none."""
    over = newest_ms // DAY_MS  # this day is not
    first = -(-period.start_ms // DAY_MS)
    stop = min(period.end_ms // DAY_MS, over)
    if stop <= first:
        first = stop = period.start_ms // DAY_MS
    edges = []
    starts = [period.start_ms] if stop <= first else []
    if stop > first and period.start_ms < first * DAY_MS:
        edges.append(Edge(period.start_ms, first * DAY_MS, cut_before=True, cut_after=False))
    rest = starts[0] if starts else stop * DAY_MS
    while rest < period.end_ms:
        end = min((rest // DAY_MS + 1) * DAY_MS, period.end_ms)
        edges.append(Edge(rest, end, cut_before=bool(rest % DAY_MS), cut_after=bool(end % DAY_MS) or end > newest_ms))
        if end > newest_ms + DAY_MS:  # nothing begins later
            break
        rest = end
    return range(first, stop), edges

"""The week of a place: what was released in each hour of each weekday, by its own clock.

A cell is released when it has grown, so that an hour holds some of what was counted in the hours before it. Over four
weeks and more that evens out; less is refused. The window that flushes does not: it holds what a quiet place has
counted all day, always at the same hour, when the place is mostly closed. So it is left out, and it is said how many
votes it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import ConfigError
from edge_aggregate.decode import UNSYNCED, instant
from edge_aggregate.statistics import bare_share
from edge_aggregate.statistics.parts import CLASSES, HAPPY, draw_variance
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.merge import kept_from
from edge_aggregate.store.read import read_terms
from edge_aggregate.store.schema import CELL_COLUMNS, DRAW_COLUMNS
from edge_aggregate.sums import unheard_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from edge_aggregate.periods import Period
    from edge_aggregate.store import Store

LEAST_DAYS: Final = 28
_LEAST_MS: Final = LEAST_DAYS * DAY_MS - 3_600_000
"""Of local days, where the clocks are put forward in them."""


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the week: `weekday` from 0 for Monday, `hour` by the local clock; windows that began in it.

    `noise`: the variance of the noise in n.
    """

    weekday: int
    hour: int
    happy: int
    n: int
    windows: int
    noise: float

    @property
    def index(self) -> float | None:
        """The share as read, in [0, 1]; None where n is mostly noise."""
        return bare_share(self.happy, self.n, self.noise)


class Week(NamedTuple):
    """All 168 hours, from Monday 0:00. `flushed`: votes that are in none of them, being released by a flush."""

    hours: list[Hour]
    flushed: int


def week(store: Store, site: str, period: Period, place: tzinfo) -> Week:
    """What was released at a site in a period, by the hours of the week of its clock.

    Raises ConfigError for a period under 28 days, one whose windows were dropped, or a site nobody heard of.
    """
    if period.end_ms - period.start_ms < _LEAST_MS:
        msg = (
            f"an hour of the week needs {LEAST_DAYS} days, as in --last {LEAST_DAYS}d: with less, it shows when cells "
            "were released"
        )
        raise ConfigError(msg)
    if period.start_ms < (kept_ms := kept_from(store.engine)):
        msg = (
            f"the windows before {instant(kept_ms).date()} were dropped (`retain`): ask for the hours of weeks after it"
        )
        raise ConfigError(msg)
    known = {name for (name,) in store.engine.fetch("SELECT name FROM sites")}
    if site not in known:
        raise unheard_of(site, known)
    happy = " + ".join(f"COALESCE(w.{CELL_COLUMNS[place]}, 0)" for place in HAPPY)
    classes = " + ".join(f"COALESCE(w.{CELL_COLUMNS[place]}, 0)" for place in CLASSES)
    draws = " + ".join(f"w.{DRAW_COLUMNS[place]}" for place in CLASSES)
    terms = read_terms(store.engine)
    sums = [[0, 0, 0] for _ in range(7 * 24)]
    drawn: list[dict[float | None, int]] = [{} for _ in sums]
    flushed = 0
    for start_ms, term, flush, h, n, k in store.engine.fetch(
        f"SELECT w.start_ms, w.terms, w.flush, {happy}, {classes}, {draws} FROM windows w JOIN sites s ON s.id = w.site"
        " WHERE s.name = ? AND w.start_ms >= ? AND w.start_ms < ? AND w.quality <> ?",
        (site, period.start_ms, period.end_ms, UNSYNCED),
    ):
        under = terms[term]
        if flush and not (under.mechanism == "none" and under.min_count <= 1):  # exact counts hold nothing back
            flushed += n
            continue
        local = instant(start_ms).astimezone(place)
        at = local.weekday() * 24 + local.hour
        sums[at] = [sum(pair) for pair in zip(sums[at], (h, n, 1), strict=True)]
        drawn[at][under.epsilon] = drawn[at].get(under.epsilon, 0) + k
    noises = [fsum(draw_variance(epsilon) * k for epsilon, k in each.items()) for each in drawn]
    hours = [
        Hour(at // 24, at % 24, happy=h, n=n, windows=windows, noise=noise)
        for at, ((h, n, windows), noise) in enumerate(zip(sums, noises, strict=True))
    ]
    return Week(hours, flushed)


def flushed_note(votes: int) -> str:
    """What is said of the votes that no hour has."""
    return f"left out: {votes} votes of windows that empty the cells at the end of a UTC day: cast in any hour of it"

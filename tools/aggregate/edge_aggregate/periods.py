"""Periods of time as people write them: `7d`, a day, an instant, in a zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from edge.contract import parse_utc
from edge.errors import ConfigError
from edge_aggregate.decode import instant, milliseconds
from edge_aggregate.store.days import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

_LAST: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNIT_MS: Final = {"h": DAY_MS // 24, "d": DAY_MS, "w": 7 * DAY_MS}
_YEARS: Final = range(2, 9999)
"""Within these, every zone has every moment, and a day before and after it."""
DAYS_LIMIT: Final = 3660
"""Days that are listed one by one: ten years."""
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open: what began at `start_ms` or later, and before `end_ms`. Milliseconds since 1970, UTC."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Check the order. Raises ConfigError."""
        if self.start_ms >= self.end_ms:
            msg = f"a period from {instant(self.start_ms)} to {instant(self.end_ms)}: it must end after it begins"
            raise ConfigError(msg)

    @property
    def days(self) -> range:
        """The UTC days it touches, counted from 1970."""
        return range(self.start_ms // DAY_MS, -(-self.end_ms // DAY_MS))

    def before(self, place: tzinfo = UTC, days: int = 28) -> Period:
        """As long, `days` earlier: of 28 days, so that it has the same days of the week.

        From a midnight in `place` to another it goes from midnight to midnight: where the clocks were changed in
        between, an hour more or less is gone back.
        """
        edges = self.start_ms, self.end_ms
        dates = [instant(ms).astimezone(place).date() for ms in edges]
        if all(midnight(day, place) == ms for day, ms in zip(dates, edges, strict=True)):
            return Period(*(midnight(day - timedelta(days=days), place) for day in dates))
        return Period(*(ms - days * DAY_MS for ms in edges))


def last(text: str, newest_ms: int) -> Period:
    """`7d`, `24h` or `4w` back from the newest `received`. Raises ConfigError."""
    match = _LAST.fullmatch(text)
    if match is None:
        msg = f"--last {text}: give hours, days or weeks, as in 24h, 7d or 4w"
        raise ConfigError(msg)
    return Period(newest_ms - int(match[1]) * _UNIT_MS[match[2]], newest_ms)


def zone(name: str) -> tzinfo:
    """A time zone by its name in the IANA database. Raises ConfigError."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        msg = f"no time zone is called {name!r:.80}: give one of the IANA database, as in Europe/Lisbon"
        raise ConfigError(msg) from error


def moment(text: str, place: tzinfo) -> int:
    """Milliseconds of a date (its midnight in `place`) or of an RFC 3339 instant. Raises ConfigError."""
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
        when = day or parse_utc(text)
    except ValueError as error:
        msg = f"{text!r:.80} is no time: give a date (2026-11-29) or an instant (2026-11-29T10:00:00Z)"
        raise ConfigError(msg) from error
    if when.year not in _YEARS:
        msg = f"{text!r:.80} is no time of the years {_YEARS.start} to {_YEARS.stop - 1}"
        raise ConfigError(msg)
    return milliseconds(parse_utc(text)) if day is None else midnight(day, place)


def midnight(day: date, place: tzinfo) -> int:
    """When a local day begins: where the clocks skip midnight, when they do."""
    return milliseconds(datetime(day.year, day.month, day.day, tzinfo=place).astimezone(UTC))


def local_days(period: Period, place: tzinfo) -> Iterator[tuple[date, Period]]:
    """The local days that a period touches, each whole: 23 or 25 hours where the clocks are changed.

    Raises ConfigError for more than `DAYS_LIMIT` of them.
    """
    if len(period.days) > DAYS_LIMIT:
        msg = f"a row for each of {len(period.days)} days: give a period of at most {DAYS_LIMIT} days"
        raise ConfigError(msg)
    day = instant(period.start_ms).astimezone(place).date()
    while (start := midnight(day, place)) < period.end_ms:
        after = day + timedelta(days=1)
        yield day, Period(start, midnight(after, place))
        day = after

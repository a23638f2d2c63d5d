"""The sites file: what a place is called, where it is, which clock hangs there. TOML, every error at once.

[sites.lobby]
name = "Main lobby"
zone = "Europe/Lisbon"
city = "lisbon"
latitude = 38.72
longitude = -9.14
population = 5000                                   # what it weighs in its city, where that is asked for
hours = { mon-fri = "08:00-20:00", sat = "10:00-14:00" }
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.contract import ID_PATTERN
from edge.errors import ConfigError
from edge.toml import read_toml
from edge_aggregate.decode import instant, milliseconds
from edge_aggregate.periods import zone

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_SIZE_LIMIT: Final = 4_000_000

Open = tuple[int, int]
"""Minutes of a local day: from, up to."""


class Site(BaseModel):
    """A place. `hours`: per weekday from Monday the minutes it is open; None: always."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    name: Annotated[str, Field(min_length=1, max_length=80)] = ""
    zone: str = "UTC"
    city: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    latitude: Annotated[float, Field(ge=-90, le=90, strict=False)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180, strict=False)] | None = None
    population: Annotated[int, Field(gt=0, le=10**10)] | None = None
    hours: dict[str, str] | None = None

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            zone(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("hours")
    @classmethod
    def _readable(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        _week(value or {})
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            msg = "latitude and longitude go together: give both, or neither"
            raise ValueError(msg)
        return self

    @property
    def place(self) -> tzinfo:
        """Its time zone."""
        return zone(self.zone)

    def is_open(self, moment: datetime) -> bool:
        """Whether it is open at a moment, by its own clock."""
        if self.hours is None:
            return True
        local = moment.astimezone(self.place)
        minute = local.hour * 60 + local.minute
        return any(start <= minute < end for start, end in self._open[local.weekday()])

    def open_ms(self, start_ms: int, end_ms: int) -> int:
        """For how many milliseconds it is open from one moment to another, by its own clock."""
        if end_ms <= start_ms:
            return 0
        if self.hours is None:
            return end_ms - start_ms
        first, last = (instant(ms).astimezone(self.place).date() for ms in (start_ms, end_ms))
        total, day = 0, first
        while day <= last:
            for opens, closes in self._open[day.weekday()]:
                begin, end = (self._at(day, minute) for minute in (opens, closes))
                total += max(0, min(end, end_ms) - max(begin, start_ms))
            day += timedelta(days=1)
        return total

    def _at(self, day: date, minute: int) -> int:
        """A minute of a local day; where the clocks skip it, when they do."""
        local = datetime.combine(day, time(), self.place) + timedelta(minutes=minute)  # by the clock on the wall
        return milliseconds(local.astimezone(UTC))

    @cached_property
    def _open(self) -> list[list[Open]]:
        return _week(self.hours or {})


def _week(hours: dict[str, str]) -> list[list[Open]]:
    """The open minutes of each weekday. Raises ValueError."""
    week: list[list[Open]] = [[] for _ in DAYS]
    for days, text in hours.items():
        first, _, last = days.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            msg = f"{days!r:.40}: give days as in mon, sat or mon-fri"
            raise ValueError(msg)
        for part in text.split(","):
            match = _HOURS.fullmatch(part.strip())
            if match is None:
                msg = f"{days}: {text!r:.40}: give hours as in 08:00-20:00, or two of them with a comma"
                raise ValueError(msg)
            start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
            if not start < end <= 24 * 60:
                msg = f"{days}: {part.strip()}: it closes before it opens; past midnight, give it as two days"
                raise ValueError(msg)
            at = DAYS.index(first)
            while True:
                week[at].append((start, end))
                if not last or DAYS[at] == last:
                    break
                at = (at + 1) % len(DAYS)
    return week


@dataclass(frozen=True)
class Sites:
    """All sites of a file. One that is not in it is known by its id, and keeps UTC."""

    sites: dict[str, Site]

    def __getitem__(self, site: str) -> Site:
        return self.sites.get(site) or _UNKNOWN

    def name(self, site: str) -> str:
        """What it is called."""
        return self[site].name or site

    @cached_property
    def cities(self) -> dict[str, list[str]]:
        """Sites by city."""
        found: dict[str, list[str]] = {}
        for site, place in sorted(self.sites.items()):
            if place.city is not None:
                found.setdefault(place.city, []).append(site)
        return found

    def weighed(self, city: str, weighting: str) -> tuple[list[str], dict[str, int] | None]:
        """A city's sites and the weight of each; None: each vote alike. Raises ConfigError."""
        found = self.cities.get(city)
        if not found:
            known = ", ".join(self.cities) or "none"
            msg = f"no site of the sites file belongs to a city {city!r:.80}: it has {known}"
            raise ConfigError(msg)
        if weighting == "votes":
            return found, None
        if weighting == "sites":
            return found, dict.fromkeys(found, 1)
        weights = {site: self[site].population for site in found}
        unknown = [site for site, weight in weights.items() if weight is None]
        if unknown:
            msg = f"--weighting population: the sites file has none for {', '.join(unknown)}"
            raise ConfigError(msg)
        return found, {site: weight for site, weight in weights.items() if weight is not None}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sites: dict[Annotated[str, Field(pattern=ID_PATTERN)], Site] = {}


_UNKNOWN: Final = Site()


def _explained(loc: tuple[str | int, ...], kind: str, message: str) -> str:
    """What is wrong with a file, and where: in the file's words."""
    where = ".".join(ascii(str(part))[1:-1] for part in loc if part != "[key]") or "file"
    if kind == "extra_forbidden":
        known = ", ".join(Site.model_fields) if len(loc) > 1 else "[sites.<id>] and nothing else"
        message = f"unknown key: there is {known}"
    elif kind in {"dict_type", "model_type"}:
        message = "must be a table, as in [sites.lobby]"
    elif kind == "string_pattern_mismatch":
        message = "an id has small letters, digits and -, up to 64 of them, as devices name it"
    return f"{where}: {message.removeprefix('Value error, ')}"


def read_sites(path: Path | None) -> Sites:
    """Read a sites file; None: every site keeps UTC. Raises ConfigError with every error, one a line."""
    if path is None:
        return Sites({})
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe waits
            msg = f"{path}: is no regular file: give a sites file"
            raise ConfigError(msg)
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
        if len(data) > _SIZE_LIMIT:
            msg = f"{path}: is over {_SIZE_LIMIT} bytes: that is no sites file"
            raise ConfigError(msg)
        return Sites(_File.model_validate(read_toml(data.decode())).sites)
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a sites file"
        raise ConfigError(msg) from error
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ConfigError("\n".join(f"{path}: {_explained(e['loc'], e['type'], e['msg'])}" for e in found)) from error
    except ValueError as error:  # TOML, or bytes that are no UTF-8
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error

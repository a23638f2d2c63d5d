"""Visitors of a site: how many come at which hour, what their faces show, and how the classifier reads them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from edge.types import CELLS, EMOTIONS

if TYPE_CHECKING:
    from random import Random

    from edge_aggregate.simulate.plan import Plan

HOUR_MS: Final = 3_600_000
_REST: Final = {"angry": 6, "disgust": 1, "fear": 3, "neutral": 60, "sad": 15, "surprise": 15}
"""Of the faces that are not happy."""
_HAPPY: Final = EMOTIONS.index("happy")
_CHUNK: Final = 30.0
Outcomes = tuple[list[tuple[int, int]], list[float]]
"""(place in `Drawn.true`, place in `Drawn.read`) and its weight, added up: what `choices` takes."""

_NOBODY: Final[list[tuple[float, Outcomes]]] = []
_WEEKEND: Final = 5, 6
_WEEKEND_HAPPIER: Final = 0.03


class Place(NamedTuple):
    """A town that simulated sites lie in."""

    city: str
    zone: str
    latitude: float
    longitude: float


PLACES: Final = (
    Place("vienna", "Europe/Vienna", 48.21, 16.37),
    Place("lisbon", "Europe/Lisbon", 38.72, -9.14),
    Place("helsinki", "Europe/Helsinki", 60.17, 24.94),
    Place("new-york", "America/New_York", 40.71, -74.01),
    Place("santiago", "America/Santiago", -33.45, -70.67),
    Place("singapore", "Asia/Singapore", 1.35, 103.82),
    Place("tokyo", "Asia/Tokyo", 35.68, 139.69),
    Place("auckland", "Pacific/Auckland", -36.85, 174.76),
)


class Drawn(NamedTuple):
    """Visitors of a stretch of time: 14 true numbers (unmasked's 7, then masked's) and 16 as read (8 each)."""

    true: list[int]
    read: list[int]


class Site:
    """Where kiosks stand. Drawn once from `rng`, so that a seed has always the same fleet."""

    def __init__(self, number: int, plan: Plan, rng: Random) -> None:
        self.name = f"site-{number + 1:04d}"
        self.place = PLACES[number % len(PLACES)]
        self.latitude = self.place.latitude + rng.uniform(-0.1, 0.1)
        self.longitude = self.place.longitude + rng.uniform(-0.1, 0.1)
        self._zone = ZoneInfo(self.place.zone)
        self.opens, self.closes = rng.choice(((6, 22), (8, 20), (9, 18), (10, 22)))
        self.rate = plan.visitors * rng.uniform(0.5, 1.5)
        self.masked = rng.uniform(0.05, 0.4)
        self.happy = min(1.0, max(0.0, plan.happy * rng.uniform(0.7, 1.3)))
        happier = min(1.0, self.happy * (1 + _WEEKEND_HAPPIER / max(plan.happy, _WEEKEND_HAPPIER)))
        self._week, self._weekend = (_outcomes(happy, self.masked, plan) for happy in (self.happy, happier))
        self._hours = self._profile()
        self._hour, self._local = -1, (0, 0)
        self._asked, self._answer = (0, 0), (0.0, _NOBODY)

    def _profile(self) -> list[float]:
        """Visitors by local hour, 1 on average while it is open: a rise at noon, a higher one in the evening."""
        hours = [
            0.3 + math.exp(-((hour - 12.5) ** 2) / 6) + 1.3 * math.exp(-((hour - 17.5) ** 2) / 5)
            if self.opens <= hour < self.closes
            else 0.0
            for hour in range(24)
        ]
        mean = sum(hours) / (self.closes - self.opens)
        return [hour / mean for hour in hours]

    def local(self, hour: int) -> tuple[int, int]:
        """(weekday, hour) there, of an hour counted from 1970, UTC."""
        if hour != self._hour:
            there = datetime.fromtimestamp(hour * 3600, UTC).astimezone(self._zone)
            self._hour, self._local = hour, (there.weekday(), there.hour)
        return self._local

    def opened(self, start_ms: int, end_ms: int) -> float:
        """The share of a stretch in which it is open, and lit."""
        return self._stretch(start_ms, end_ms)[0]

    def visitors(self, rng: Random, start_ms: int, end_ms: int) -> Drawn:
        """Who came to one kiosk in this stretch."""
        true, read = [0] * 14, [0] * 16
        for mean, (outcomes, weights) in self._stretch(start_ms, end_ms)[1]:
            for one, other in rng.choices(outcomes, cum_weights=weights, k=poisson(rng, mean)):
                true[one] += 1
                read[other] += 1
        return Drawn(true, read)

    def _stretch(self, start_ms: int, end_ms: int) -> tuple[float, list[tuple[float, Outcomes]]]:
        """The lit share, and per opened hour how many are expected and who: the last one is remembered for the others.

        Kiosks of a site have windows of the same hours, one after the other.
        """
        if self._asked == (start_ms, end_ms):
            return self._answer
        lit, means = 0, []
        for hour in range(start_ms // HOUR_MS, -(-end_ms // HOUR_MS)):
            weekday, local = self.local(hour)
            if rise := self._hours[local]:
                part = min(end_ms, (hour + 1) * HOUR_MS) - max(start_ms, hour * HOUR_MS)
                lit += part
                mean = self.rate * rise * part / HOUR_MS
                means.append((mean, self._weekend if weekday in _WEEKEND else self._week))
        self._asked = start_ms, end_ms
        self._answer = lit / max(1, end_ms - start_ms), means
        return self._answer


def _outcomes(happy: float, masked: float, plan: Plan) -> Outcomes:
    outcomes, weights = [], []
    for route, (share, table) in enumerate(
        ((1 - masked, plan.classifier.unmasked), (masked, plan.classifier.masked)),
    ):
        for emotion, row in enumerate(table):
            name = EMOTIONS[emotion]
            there = happy if emotion == _HAPPY else (1 - happy) * _REST[name] / sum(_REST.values())
            for cell, count in enumerate(row):
                weight = share * there * count / sum(row)
                if weight > 0:
                    outcomes.append((route * len(EMOTIONS) + emotion, route * len(CELLS) + cell))
                    weights.append(weight)
    return outcomes, list(accumulate(weights))


def poisson(rng: Random, mean: float) -> int:
    """One draw, exact: arrivals of rate 1 counted until `mean` is used up, a chunk at a time."""
    found = 0
    while mean > 0:
        limit = math.exp(-min(mean, _CHUNK))
        product = rng.random()
        while product > limit:
            found += 1
            product *= rng.random()
        mean -= _CHUNK
    return found

"""Figures about the service itself, in constant memory."""

from __future__ import annotations

import math
import time
from typing import Final

HISTOGRAM_SECONDS: Final = 3600.0
"""How long one of the two histograms counts before it becomes the older one."""
RESOLUTION: Final = 0.02
"""Buckets grow by 2 %, which bounds the error of a percentile."""
RATE_SECONDS: Final = 5.0


class Percentiles:
    """Percentiles over the last one to two hours from two rotating histograms of logarithmic buckets."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._since = time.monotonic()

    def add(self, value: float) -> None:
        """Count a value > 0 (here: milliseconds)."""
        now = time.monotonic()
        if now - self._since > HISTOGRAM_SECONDS:
            self._before, self._now, self._since = self._now, {}, now
        bucket = round(math.log(max(value, 1e-6)) / RESOLUTION)
        self._now[bucket] = self._now.get(bucket, 0) + 1

    def at(self, share: float) -> float | None:
        """The value below which `share` (0-1) of the counted ones lie; None before the first."""
        total = sum(self._now.values()) + sum(self._before.values())
        if not total:
            return None
        left = share * total
        for bucket in sorted(self._now.keys() | self._before.keys()):
            left -= self._now.get(bucket, 0) + self._before.get(bucket, 0)
            if left <= 0:
                return round(math.exp(bucket * RESOLUTION), 3)
        return None


class Rate:
    """Events per second as an exponential mean over about `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._value, self._last = 0.0, time.monotonic()

    def tick(self) -> None:
        """Count one event now."""
        now = time.monotonic()
        gap, self._last = max(now - self._last, 1e-6), now
        weight = 1 - math.exp(-gap / RATE_SECONDS)
        self._value += weight * (1 / gap - self._value)

    @property
    def value(self) -> float:
        """Events per second; falls towards zero when none come."""
        idle = time.monotonic() - self._last
        return self._value * math.exp(-max(0.0, idle - 1) / RATE_SECONDS)

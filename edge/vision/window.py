"""Tumbling windows on the frames' own clock; UTC is only a label.

A live camera's windows are cut at UTC multiples of the length once the clock is synced (the first is
shorter), else at multiples of the length from the start. A replay's are cut from its first frame, and its
run is labelled as starting at the last UTC multiple: the same clip gives the same windows at any speed, on
the same grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.process.clock import Clock
    from edge.types import Scene, TimeQuality

COVERAGE_STEPS: Final = 20
MAX_GAP: Final = 1.0
"""Seconds a live frame stands for at the most; a longer silence was not watched."""


def grid_floor(when: datetime, seconds: float) -> datetime:
    """The last UTC multiple of `seconds` at or before `when`."""
    return datetime.fromtimestamp(math.floor(when.timestamp() / seconds) * seconds, UTC)


class Timeline:
    """Turns window time (seconds) into UTC labels and kernel-monotonic seconds, and says where to cut."""

    def __init__(self, clock: Clock, seconds: float, *, live: bool) -> None:
        self._clock, self._seconds, self._live = clock, seconds, live
        self._epoch = grid_floor(clock.utcnow(), seconds)
        self._mono = clock.monotonic()
        self.start = self._mono if live else 0.0
        """Window time of the run's start."""

    def utc(self, t: float) -> datetime:
        """UTC label of window time `t`, by the wall clock as it is now (a replay: from the run's start)."""
        if self._live:
            return self._clock.utcnow() - timedelta(seconds=self._clock.monotonic() - t)
        return self._epoch + timedelta(seconds=t)

    def mono(self, t: float) -> float:
        """Kernel-monotonic seconds of window time `t`."""
        return t if self._live else self._mono + t

    def quality(self) -> TimeQuality:
        """Whether the label is to be believed."""
        return self._clock.time_quality()

    def next_cut(self, t: float) -> float:
        """Window time at which a window that starts at `t` ends.

        Only the run's first window may be short: each one costs epsilon, and a clock that is set again and again must
        not make them many. After a step a window is up to half as long again, and then on the grid.
        """
        if self._live and self.quality() != "unsynced":
            here = self.utc(t).timestamp()
            # A start a hair before a multiple is that multiple: never a window of a few milliseconds.
            ahead = (math.floor(here / self._seconds + 1e-6) + 1) * self._seconds - here
            if t > self.start and ahead < self._seconds / 2:
                ahead += self._seconds
            return t + ahead
        return t + self._seconds


@dataclass(slots=True)
class Window:
    """One window being filled; times in window seconds. The seconds of several `cameras` add up."""

    start: float
    end: float
    cameras: int = 1
    held: dict[Scene, float] = field(default_factory=dict)
    looked: bool = False
    """Faces were looked for in at least one frame. False: no vote can be in it."""
    watched: bool = False
    """At least one frame came, whatever it showed. False: there was no camera, and nobody could change that."""

    def watch(self, start: float, end: float, scene: Scene) -> None:
        """Count the part of [start, end) that lies in this window as watched with this scene."""
        inside = min(end, self.end) - max(start, self.start)
        if inside > 0:
            self.held[scene] = self.held.get(scene, 0.0) + inside

    def coverage(self, end: float) -> float:
        """Share (0-1) of the window up to `end` with a processed frame and a scene that is ok, mean of the cameras."""
        length = (end - self.start) * self.cameras
        return min(1.0, self.held.get("ok", 0.0) / length) if length > 0 else 0.0

    def told_coverage(self, end: float) -> float:
        """The same in twentieths: a visitor who undoes `frozen` or `covered` for a moment is not to be read off it."""
        return round(self.coverage(end) * COVERAGE_STEPS) / COVERAGE_STEPS

    def scene(self, end: float) -> Scene:
        """The scene that held longest up to `end`; time without a frame counts as `frozen`."""
        unwatched = (end - self.start) * self.cameras - sum(self.held.values())
        held = self.held | {"frozen": self.held.get("frozen", 0.0) + unwatched}
        return max(held, key=lambda s: held[s])

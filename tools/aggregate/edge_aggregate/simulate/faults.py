"""What becomes of a device's messages on their way: late, in bursts, twice, never, or contradicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from edge_aggregate.simulate.device import HOLD_MS

if TYPE_CHECKING:
    from random import Random

    from edge_aggregate.simulate.device import Device
    from edge_aggregate.simulate.plan import Plan
    from edge_aggregate.simulate.wire import Window

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * _MINUTE_MS
_OUTAGE_WINDOWS: Final = 6.0
"""Of an outage, on average."""
_LOST_WINDOWS: Final = 2.0
_CLOCK_WINDOWS: Final = 3.0
_BURST_MS: Final = 20
"""Between two rows that come after an outage."""

Loss = Literal["", "gap", "gone"]
"""A window that never comes, or has not yet: the device still has it, or it is gone there too."""


class Delivery(NamedTuple):
    """When a window is received, in milliseconds (of a lost one: never), and when a payload that contradicts it is."""

    times: tuple[int, ...]
    loss: Loss
    conflict_ms: int | None

    def by(self, end_ms: int) -> Delivery:
        """What of it has come then. Of a window that has not, nothing has: the device still has it."""
        if self.loss or self.times[0] > end_ms:
            return Delivery((), self.loss or "gap", None)
        conflict = None if self.conflict_ms is None or self.conflict_ms > end_ms else self.conflict_ms
        return Delivery(tuple(at for at in self.times if at <= end_ms), "", conflict)


class _Fate:
    """Of one device."""

    __slots__ = ("back_ms", "gap", "late", "tail")

    def __init__(self) -> None:
        self.back_ms = 0
        self.late = self.gap = self.tail = 0


class Weather:
    """Decides for each window."""

    def __init__(self, plan: Plan, rng: Random) -> None:
        f = plan.faults
        self._rng, self._faults, self._grid = rng, f, plan.seconds * 1000
        self._outage = f.outages / _OUTAGE_WINDOWS
        self._lost = f.lost / _LOST_WINDOWS
        self._clock = f.clock_errors / _CLOCK_WINDOWS

    def _some(self, mean: float) -> int:
        """1 or more."""
        return 1 + int(self._rng.expovariate(1 / (mean - 0.5)))

    def deliver(self, device: Device, window: Window) -> Delivery:
        """When this window comes. The device may be told to begin a new run, or lose its clock."""
        rng, faults = self._rng, self._faults
        fate = device.fate
        if not isinstance(fate, _Fate):
            fate = device.fate = _Fate()
        if loss := self._loss(device, fate):
            return Delivery((), loss, None)
        first = self._first(fate, window)
        times: tuple[int, ...] = (first,)
        if rng.random() < faults.duplicates:
            times = first, first + 10 + int(rng.expovariate(1 / (10 * _MINUTE_MS)))
        conflict = None
        if rng.random() < faults.conflicts:
            # Later, in the same millisecond, or, where the true one was late, before it.
            conflict = max(window.closed_ms, first + rng.choice((1, 1, 1, 0, -1)) * rng.randrange(1, 30 * _MINUTE_MS))
        if rng.random() < self._clock and not device.clock.windows:
            device.lose_clock(rng.choice(("holdover", "unsynced")), self._some(_CLOCK_WINDOWS))
        return Delivery(times, "", conflict)

    def _loss(self, device: Device, fate: _Fate) -> Loss:
        if not (fate.gap or fate.tail) and self._rng.random() < self._lost:
            which = "gap" if self._rng.random() < 0.5 else "tail"
            setattr(fate, which, self._some(_LOST_WINDOWS))
        if fate.tail:
            fate.tail -= 1
            if not fate.tail:  # with the outbox the last windows of the run went
                device.renew()
            return "gone"
        if fate.gap:
            fate.gap -= 1
            return "gap"
        return ""

    def _first(self, fate: _Fate, window: Window) -> int:
        rng, closed = self._rng, window.closed_ms
        if window.quality == "unsynced":
            closed += HOLD_MS
        if closed >= fate.back_ms and rng.random() < self._outage:
            fate.back_ms = closed + round(rng.expovariate(1 / (_OUTAGE_WINDOWS * self._grid)))
            fate.late = 0
        if closed < fate.back_ms:
            fate.late += 1
            return fate.back_ms + fate.late * _BURST_MS
        if rng.random() < self._faults.late:
            return closed + self._delay()
        return closed + 50 + int(rng.expovariate(1 / 400))

    def _delay(self) -> int:
        """Of one that comes late by itself: hours, sometimes days, seldom more than the 30 days a figure waits."""
        chance = self._rng.random()
        if chance < 0.03:
            return 30 * _DAY_MS + self._rng.randrange(2 * _DAY_MS)
        if chance < 0.3:
            return self._rng.randrange(6 * 60 * _MINUTE_MS, 4 * _DAY_MS)
        return self._rng.randrange(_MINUTE_MS, 6 * 60 * _MINUTE_MS)

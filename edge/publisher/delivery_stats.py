"""How sending goes: what the broker took, when, and how long its answers take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.errors import BrokerUnavailable
from edge.process.stats import Percentiles

if TYPE_CHECKING:
    from datetime import datetime

    from edge.process.clock import Clock

ANSWER_S: Final = 120.0
"""An acknowledgement that takes longer does not come: a proxy answers pings for a broker that is gone, say."""


@dataclass(frozen=True, slots=True)
class Told:
    """`puback_s`: seconds from a publish to its answer, by share (0.5, 0.95, 0.99), over one to two hours."""

    connected: bool
    connections: int
    taken: int
    not_taken: int
    last_taken: datetime | None
    puback_s: dict[float, float]


class Delivery:
    """Counts messages of every kind; used by the publisher's one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flying: dict[int, float] = {}
        self._puback = Percentiles()
        self._connections = self._taken = self._not_taken = 0
        self._last_taken: datetime | None = None

    def connected(self) -> None:
        """A connection begins; what the last one left unanswered stays so."""
        self._flying.clear()
        self._connections += 1

    def sent(self, mid: int) -> None:
        """A message is on its way."""
        self._flying[mid] = self._clock.monotonic()

    def check(self) -> None:
        """Raise BrokerUnavailable when a message was not acknowledged in time: rows go again on a new connection."""
        began = next(iter(self._flying.values()), None)  # the oldest: they are in the order in which they were sent
        if began is not None and self._clock.monotonic() - began > ANSWER_S:
            msg = f"the broker is there and has not acknowledged a message within {ANSWER_S:.0f} s: connecting again"
            raise BrokerUnavailable(msg)

    def answered(self, mid: int, *, taken: bool) -> None:
        """Its acknowledgement has come."""
        began = self._flying.pop(mid, None)
        if began is not None:
            self._puback.add(1000 * (self._clock.monotonic() - began))
        if taken:
            self._taken += 1
            self._last_taken = self._clock.utcnow()
        else:
            self._not_taken += 1

    def told(self, *, connected: bool) -> Told:
        """The figures now."""
        shares = {share: self._puback.at(share) for share in (0.5, 0.95, 0.99)}
        puback = {share: ms / 1000 for share, ms in shares.items() if ms is not None}
        return Told(connected, self._connections, self._taken, self._not_taken, self._last_taken, puback)

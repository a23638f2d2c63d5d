"""Rows that the broker may have something against: it answers no to them, or hangs up on them, and takes others.

Whether it is the row or the broker, only another row can tell. So one that was not taken waits until another was, and
then goes again; when that fails too it is the row's fault, and it waits for an hour. None is given up.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from edge.process.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.outbox.rows import Key
    from edge.process.clock import Clock

log = logging.getLogger("edge.publisher")

HOLD_S: Final = 3600.0
MOST: Final = 1000
"""Rows that were not taken, one after the other: begin anew, since each look for another one reads past them all."""
HANG_UPS: Final = 3
"""Connections in a row that end with the same row alone unanswered: chance once or twice."""


class Doubted:
    """Which rows wait; it outlives a connection, or one that breaks each time would ask with the same row for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[Key, float] = {}
        """When a row may go again; infinity: once another was taken."""
        self._alone: Key | None = None
        self._hang_ups = 0

    @property
    def waiting(self) -> set[Key]:
        """Rows that let others go first."""
        now = self._clock.monotonic()
        return {key for key, until in self._until.items() if until > now}

    def refused(self, key: Key, why: str, *, passing: bool = False) -> None:
        """The broker did not take this row; `passing`: for a reason that no row can have."""
        if len(self._until) >= MOST:
            self.ask_again()
        if passing or key not in self._until:
            self._until[key] = math.inf
            return
        self._until[key] = self._clock.monotonic() + HOLD_S
        log.warning(event("row-held", row=named(key), why=why, next="kept, tried again in an hour; others go on"))

    def hung_up(self, unanswered: Sequence[Key]) -> None:
        """The connection ended with these rows unanswered."""
        if not unanswered:
            return
        alone = unanswered[0] if len(unanswered) == 1 else None
        self._hang_ups = self._hang_ups + 1 if alone == self._alone else 1
        self._alone = alone
        held_before = alone is not None and self._until.get(alone, math.inf) not in {0.0, math.inf}
        if alone is not None and (held_before or self._hang_ups >= HANG_UPS):
            self._hang_ups = 0
            self.refused(alone, "connections in a row ended on it")

    def taken(self, key: Key) -> None:
        """The broker took this row: it takes rows, and those that let others go first may try once more."""
        self._until.pop(key, None)
        self._until = {other: 0.0 if until == math.inf else until for other, until in self._until.items()}
        self._alone, self._hang_ups = None, 0

    def ask_again(self) -> bool:
        """There is no other row left to ask with: begin anew with those that wait for one. Whether there are any."""
        before = len(self._until)
        self._until = {key: until for key, until in self._until.items() if until != math.inf}
        return len(self._until) < before

    def clear(self) -> None:
        """Every row may go."""
        self._until.clear()


def named(key: Key) -> str:
    """A row as its message is called (CloudEvents' id)."""
    return f"{key[0]}/{key[1]}"

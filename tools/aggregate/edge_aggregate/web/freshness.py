"""Whether anything still comes, by the server's own clock: the store's stands still with a subscriber that is dead.

Only of stores that a subscriber fills: of one that is filled from files at night nothing is late.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from edge_aggregate.store.engine import meta
from edge_aggregate.store.fleet import HEARD

if TYPE_CHECKING:
    from edge_aggregate.store import Store

HOUR_MS: Final = 3_600_000
QUIET_MS: Final = 3 * HOUR_MS
"""Nothing at all from a fleet whose devices speak every minute: broker, subscriber or a certificate is at its end."""
_BY_DAY_H: Final = 48


class Look(NamedTuple):
    """What a page depends on beside what was asked: `merges` of the store, and for how many hours nothing came, or 0.

    From two days on whole days are shown, so that a page of an old store is not made anew every hour.
    """

    merges: int
    quiet_h: int

    def __str__(self) -> str:
        return f"{self.merges}-{self.quiet_h}"


def look(store: Store) -> Look:
    """As of now. Raises StorageError."""
    subscribed = meta(store.engine, HEARD) is not None
    heard = heard_ms(store) if subscribed else 0
    quiet_ms = now_ms() - heard
    if not heard or quiet_ms <= QUIET_MS:
        return Look(store.merges, 0)
    hours = quiet_ms // HOUR_MS
    return Look(store.merges, hours if hours < _BY_DAY_H else hours // 24 * 24)


def heard_ms(store: Store) -> int:
    """When the newest message came, of counts, status or health; 0 before there is one.

    One received by a clock that is ahead of this one is not believed; where none is, the store's clock stands for it.
    """
    newest = store.newest_ms
    noted = (newest, meta(store.engine, HEARD) or 0)
    return max((at for at in noted if at <= now_ms() + HOUR_MS), default=newest)


def now_ms() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000


def span(hours: float) -> str:
    """`5 h`, `3 d`."""
    return f"{hours / 24:.0f} d" if hours >= _BY_DAY_H else f"{hours:.0f} h"

"""The outbox, a SQLite spool between the two services: committed there first, published from here later.

What crosses this wall is a `WindowReport`, already private. Vision writes windows (`edge.outbox.writer`) and is the
only one to put a damaged file aside; the publisher reads rows and marks them. Every failure is a `StorageError` that
says what, where and what to do; a row that is none is refused by itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edge.outbox.rows import (
    REFUSED,
    SCHEMA,
    SELECT,
    SENT,
    SOUND,
    UNSENT,
    VERSION,
    Key,
    OutboxStats,
    Row,
    read_row,
)
from edge.outbox.sqlite import SqliteFile, explained
from edge.process.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime
    from pathlib import Path

    from edge.types import TimeQuality

BATCH: Final = 50
KEEP_DAYS: Final = 30
"""How long sent rows stay for replays."""
_OWNER: Final = re.compile(r"[a-z0-9-]{1,64}/[a-z0-9-]{1,64}")
_UNSOUND: Final = f"NOT (state IN (0, 1) AND coalesce({SOUND}, 0))"
_REFUSE_UNSOUND: Final = f"UPDATE rows SET state = 2 WHERE state <> 2 AND {_UNSOUND}"  # noqa: S608 - a constant
_AGES: Final = "SELECT kernel_boot_id, committed, committed_mono FROM rows WHERE state = 0"


class Outbox(SqliteFile):
    """An existing outbox, open; used by one thread of one process, the other service has its own.

    Raises StorageError, here and in every method.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        super().__init__(path, SCHEMA, VERSION)
        self._clock = clock or SystemClock()

    def _meta(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _whole_meta(self, name: str) -> int:
        """A count, 0 where there is none that can be believed."""
        text = self._meta(name) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def current_boot(self) -> str | None:
        """The boot_id of the latest run, None before the first."""
        with explained(self.path):
            found = self._db.execute("SELECT boot_id FROM boots ORDER BY ordinal DESC LIMIT 1").fetchone()
        boot = "" if found is None else str(found[0])
        return boot if len(boot) == 32 and not set(boot) - set("0123456789abcdef") else None

    @property
    def owner(self) -> str | None:
        """`site/device` that these windows were counted as; None: nobody said so yet, `?`: what is said is no name."""
        with explained(self.path):
            found = self._meta("owner")
        return found if found is None or _OWNER.fullmatch(found) else "?"

    def refuse_unsound(self) -> int:
        """Set aside the rows that are none, whoever wrote them; returns how many."""
        with self._transaction():
            return self._db.execute(_REFUSE_UNSOUND).rowcount

    def unsent(self, limit: int = BATCH, *, excluding: Iterable[Key] = ()) -> list[Row]:
        """The oldest unsent rows, in order of commit, without those `excluding` names (in flight, held)."""
        skip = set(excluding)
        with explained(self.path):
            found = self._db.execute(
                SELECT + f" WHERE state = ? AND {SOUND} ORDER BY n LIMIT ?",
                (UNSENT, limit + len(skip)),
            ).fetchall()
        return [row for row in map(read_row, found) if row.key not in skip][:limit]

    def between(self, boot_id: str, low: int, high: int) -> list[Row]:
        """At most `BATCH` rows of a run with low ≤ seq ≤ high, ascending, refused ones left out."""
        with explained(self.path):
            found = self._db.execute(
                SELECT
                + f" WHERE boot_id = ? AND seq BETWEEN ? AND ? AND state IN (0, 1) AND {SOUND} ORDER BY seq LIMIT ?",
                (boot_id, *(min(max(seq, 0), 2**63 - 1) for seq in (low, high)), BATCH),
            ).fetchall()
        return [read_row(values) for values in found]

    def last_released(self) -> Row | None:
        """The latest row that has been acknowledged: what `live` shows."""
        with explained(self.path):
            found = self._db.execute(
                SELECT + f" WHERE state = ? AND {SOUND} ORDER BY n DESC LIMIT 1",
                (SENT,),
            ).fetchone()
        return None if found is None else read_row(found)

    def released_since(self, committed: float) -> list[Row]:
        """Acknowledged rows committed from then on (seconds since 1970), in order of commit."""
        with explained(self.path):
            found = self._db.execute(
                SELECT + f" WHERE state = ? AND committed >= ? AND {SOUND} ORDER BY n", (SENT, committed)
            ).fetchall()
        return [read_row(values) for values in found]

    def mark_sent(self, keys: Iterable[Key]) -> None:
        """Record that the broker acknowledged these rows; they stay for replays for `KEEP_DAYS`."""
        self._mark(keys, SENT)

    def refuse(self, keys: Iterable[Key]) -> None:
        """Set aside rows that can never be sent (unreadable, off contract), so they hold up no others."""
        self._mark(keys, REFUSED, before=SENT)

    def _mark(self, keys: Iterable[Key], state: int, *, before: int = UNSENT) -> None:
        with self._transaction():
            today = self._whole_meta("day") or 1
            self._db.executemany(
                "UPDATE rows SET state = ?, sent_at = ? WHERE boot_id = ? AND seq = ? AND state BETWEEN 0 AND ?",
                [(state, today, *key, before) for key in keys],
            )

    def check_writable(self) -> None:
        """Write a few bytes, durably."""
        with self._transaction():
            self._set_meta("checked", str(self._clock.monotonic()))

    def unlabelled(self, since: float) -> list[Row]:
        """Unsent rows of an unset clock without a label, committed from `since` on (monotonic, this kernel boot)."""
        with explained(self.path):
            before = self._db.execute(
                "SELECT n FROM rows WHERE kernel_boot_id <> ? OR committed_mono < ? ORDER BY n DESC LIMIT 1",
                (self._clock.kernel_boot_id, since),
            ).fetchone()
            found = self._db.execute(
                SELECT
                + f""" WHERE n > ? AND state = ? AND label_start IS NULL AND {SOUND}
                AND report LIKE '%"time_quality":"unsynced"%'""",
                (0 if before is None else before[0], UNSENT),
            ).fetchall()
        return [read_row(values) for values in found]

    def label(self, key: Key, start: datetime, quality: TimeQuality) -> None:
        """Fix a row's start and time quality, once: a row that has a label keeps it."""
        with self._transaction():
            self._db.execute(
                "UPDATE rows SET label_start = ?, label_quality = ?"
                " WHERE boot_id = ? AND seq = ? AND label_start IS NULL",
                (start.isoformat(), quality, *key),
            )

    def stats(self) -> OutboxStats:
        """What waits, how long, and what was lost."""
        with explained(self.path):
            unsent = self._db.execute("SELECT count(*) FROM rows WHERE state = 0").fetchone()[0]
            refused = self._db.execute("SELECT count(*) FROM rows WHERE state = ?", (REFUSED,)).fetchone()[0]
            oldest = self._db.execute(f"{_AGES} AND {SOUND} ORDER BY n LIMIT 1").fetchone()
            dropped = self._whole_meta("dropped")
        age = 0.0
        if oldest is not None:
            kernel, committed, mono = oldest
            same = kernel == self._clock.kernel_boot_id
            age = self._clock.monotonic() - mono if same else self._clock.utcnow().timestamp() - committed
        return OutboxStats(unsent, max(0.0, round(age, 1)), dropped, refused)

    def prune(self, today: date) -> int:
        """Delete rows sent over `KEEP_DAYS` ago, by a synced clock's UTC date; returns how many.

        Days are counted, not subtracted: each date that differs from the last one given is one day. A clock
        that jumps by a year, for however long, thus makes one day pass; a device that is off, none.
        """
        with self._transaction():
            day = self._whole_meta("day")
            if self._meta("today") != today.isoformat():
                day += 1
                self._set_meta("today", today.isoformat())
                self._set_meta("day", str(day))
            # Version 0.1 kept seconds there: such rows count from today.
            self._db.execute("UPDATE rows SET sent_at = ? WHERE state = ? AND sent_at > ?", (day, SENT, day))
            return self._db.execute(
                "DELETE FROM rows WHERE state = ? AND sent_at < ?", (SENT, day - KEEP_DAYS)
            ).rowcount

    # ---- both sides: a pause has to outlive a power cut, which the runtime folder does not

    @property
    def paused(self) -> bool:
        """The state asked for since the last pause or resume."""
        with explained(self.path):
            return self._meta("paused") == "1"

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._transaction():
            self._set_meta("paused", str(int(value)))

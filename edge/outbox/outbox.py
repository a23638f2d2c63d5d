"""The outbox, a SQLite spool between the two services: committed here first, published from here later.

A commit is one transaction under WAL and `synchronous=FULL`: the window, its identity, the accumulators and
the day of the last flush are all on disk, or none of them is. What crosses this wall is a `WindowReport`,
already private. Vision writes windows and is the only one to put a damaged file aside; the publisher reads
rows and marks them. Every failure is a `StorageError` that says what, where and what to do.
"""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from edge.errors import StorageError
from edge.outbox.rows import REFUSED, REPORT, SCHEMA, SELECT, SENT, UNSENT, VERSION, Key, OutboxStats, Row, read_row
from edge.outbox.sqlite import Spool, create, explained, is_damage, put_aside
from edge.process.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date, datetime
    from pathlib import Path

    from edge.types import TimeQuality, WindowReport

Held = dict[str, dict[str, tuple[int, int]]]
"""Route → cell → (noised value, draws), as `edge.vision.privacy` accumulates it; here only stored."""

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
BATCH: Final = 50
KEEP_DAYS: Final = 30
"""How long sent rows stay for replays."""

_DELETE_DONE: Final = "DELETE FROM rows WHERE n IN (SELECT n FROM rows WHERE state <> 0 AND n < ? ORDER BY n LIMIT 20)"
_DELETE_UNSENT: Final = "DELETE FROM rows WHERE n IN (SELECT n FROM rows WHERE state = 0 AND n < ? ORDER BY n LIMIT 20)"


class Outbox(Spool):
    """An open outbox, used by one thread of one process; the other service has its own.

    `Outbox(path)` opens an existing one (the publisher's way); `open_for_vision` creates it. Raises
    StorageError, here and in every method. `max_bytes` bounds the file by dropping sent rows first, and
    the oldest unsent ones only when there is nothing else to drop.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, clock: Clock | None = None) -> None:
        super().__init__(path, SCHEMA, VERSION)
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._boot_id: str | None = None

    def _meta(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # ---- vision's side

    def begin_boot(self, boot_id: str, kernel_boot_id: str, *, policy: str = "", prev: Key | None = None) -> None:
        """Open the run `boot_id` (random, 32 hex digits), whose rows count from seq 1.

        `prev` is the run before it where the file does not know: the old one was put aside.
        `policy` names the privacy policy: when it differs from the last run's, what was accumulated is
        discarded, since it must not be released under another statement than it was noised for.
        """
        with self._transaction():
            last = self._db.execute(
                "SELECT boot_id, last_seq FROM boots WHERE last_seq > 0 ORDER BY ordinal DESC LIMIT 1"
            ).fetchone()
            self._db.execute(
                "INSERT INTO boots (boot_id, kernel_boot_id, prev_boot_id, prev_last_seq) VALUES (?, ?, ?, ?)",
                (boot_id, kernel_boot_id, *(last or prev or (None, None))),
            )
            if self._meta("policy") != policy:
                self._set_meta("policy", policy)
                self._set_meta("accumulators", "{}")
        self._boot_id = boot_id

    def resume_boot(self, boot_id: str) -> int | None:
        """Go on with a run that this file knows, and return its last seq; None when it does not."""
        with explained(self.path):
            found = self._db.execute("SELECT last_seq FROM boots WHERE boot_id = ?", (boot_id,)).fetchone()
        if found is None:
            return None
        self._boot_id = boot_id
        return int(found[0])

    def commit(self, close: Callable[[Held, str | None], tuple[WindowReport, Held]]) -> int:
        """Record one window and return its seq; when this returns, the window is on disk.

        `close` gets the accumulators and the UTC day of the last flush (None at first) inside the
        transaction, and returns the report and the accumulators from now on. On any error nothing has
        changed and the same window may be committed again.
        """
        if self._boot_id is None:
            msg = "begin_boot comes before commit"
            raise RuntimeError(msg)
        with self._transaction():
            held: Held = {
                route: {cell: (value, draws) for cell, (value, draws) in cells.items()}
                for route, cells in json.loads(self._meta("accumulators") or "{}").items()
            }
            report, kept = close(held, self._meta("flush_day"))
            kernel, prev_boot, prev_seq, last_seq = self._db.execute(
                "SELECT kernel_boot_id, prev_boot_id, prev_last_seq, last_seq FROM boots WHERE boot_id = ?",
                (self._boot_id,),
            ).fetchone()
            seq = int(last_seq) + 1
            body = REPORT.dump_json(report).decode()
            now, mono = self._clock.utcnow().timestamp(), self._clock.monotonic()
            self._db.execute(
                "INSERT INTO rows (boot_id, seq, prev_boot_id, prev_last_seq, kernel_boot_id, report,"
                " committed, committed_mono) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._boot_id, seq, prev_boot, prev_seq, kernel, body, now, mono),
            )
            self._db.execute("UPDATE boots SET last_seq = ? WHERE boot_id = ?", (seq, self._boot_id))
            self._set_meta("accumulators", json.dumps(kept))
            self._set_meta("flush_day", _flush_day(report))
            self._bound()
        return seq

    def spent(self, day: str) -> Fraction:
        """Epsilon spent on a UTC day (YYYY-MM-DD) by windows whose start it labels; only the last day is known."""
        with explained(self.path):
            last, epsilon = json.loads(self._meta("spent") or '["", "0"]')
        return Fraction(epsilon) if last == day else Fraction(0)

    def spend(self, day: str, epsilon: Fraction) -> None:
        """Add to a day's spending; called by `close` within `commit`, so that both are recorded or neither."""
        self._set_meta("spent", json.dumps([day, str(self.spent(day) + epsilon)]))

    def _bound(self) -> None:
        """Drop the oldest sent rows, then the oldest unsent ones, until the live pages fit `max_bytes`."""
        for _ in range(1000):
            pages, free, size = (
                self._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size <= self._max_bytes:
                return
            newest = self._db.execute("SELECT max(n) FROM rows").fetchone()[0]
            if self._db.execute(_DELETE_DONE, (newest,)).rowcount:
                continue
            lost = self._db.execute(_DELETE_UNSENT, (newest,)).rowcount
            if not lost:
                return
            self._set_meta("dropped", str(int(self._meta("dropped") or 0) + lost))

    # ---- the publisher's side

    def current_boot(self) -> str | None:
        """The boot_id of the latest run, None before the first."""
        with explained(self.path):
            found = self._db.execute("SELECT boot_id FROM boots ORDER BY ordinal DESC LIMIT 1").fetchone()
        return None if found is None else str(found[0])

    def unsent(self, limit: int = BATCH, *, excluding: Iterable[Key] = ()) -> list[Row]:
        """The oldest unsent rows, in order of commit, without those `excluding` names (in flight, held)."""
        skip = set(excluding)
        with explained(self.path):
            found = self._db.execute(
                SELECT + " WHERE state = ? ORDER BY n LIMIT ?",
                (UNSENT, limit + len(skip)),
            ).fetchall()
        return [row for row in map(read_row, found) if row.key not in skip][:limit]

    def between(self, boot_id: str, low: int, high: int) -> list[Row]:
        """At most `BATCH` rows of a run with low ≤ seq ≤ high, ascending, refused ones left out."""
        with explained(self.path):
            found = self._db.execute(
                SELECT + " WHERE boot_id = ? AND seq BETWEEN ? AND ? AND state < 2 ORDER BY seq LIMIT ?",
                (boot_id, low, high, BATCH),
            ).fetchall()
        return [read_row(values) for values in found]

    def last_released(self) -> Row | None:
        """The latest row that has been acknowledged: what `live` shows."""
        with explained(self.path):
            found = self._db.execute(
                SELECT + " WHERE state = ? ORDER BY n DESC LIMIT 1",
                (SENT,),
            ).fetchone()
        return None if found is None else read_row(found)

    def released_since(self, committed: float) -> list[Row]:
        """Acknowledged rows committed from then on (seconds since 1970), in order of commit."""
        with explained(self.path):
            found = self._db.execute(
                SELECT + " WHERE state = ? AND committed >= ? ORDER BY n", (SENT, committed)
            ).fetchall()
        return [read_row(values) for values in found]

    def mark_sent(self, keys: Iterable[Key]) -> None:
        """Record that the broker acknowledged these rows; they stay for replays for `KEEP_DAYS`."""
        self._mark(keys, SENT)

    def refuse(self, keys: Iterable[Key]) -> None:
        """Set aside rows that can never be sent (unreadable, off contract), so they hold up no others."""
        self._mark(keys, REFUSED)

    def _mark(self, keys: Iterable[Key], state: int) -> None:
        with self._transaction():
            today = int(self._meta("day") or 1)
            self._db.executemany(
                "UPDATE rows SET state = ?, sent_at = ? WHERE boot_id = ? AND seq = ? AND state = 0",
                [(state, today, *key) for key in keys],
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
                + """ WHERE n > ? AND state = ? AND label_start IS NULL
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
            oldest = self._db.execute(
                "SELECT kernel_boot_id, committed, committed_mono FROM rows WHERE state = 0 ORDER BY n LIMIT 1"
            ).fetchone()
            dropped = int(self._meta("dropped") or 0)
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
            day = int(self._meta("day") or 0)
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


def _flush_day(report: WindowReport) -> str:
    # The same rounding as edge.vision.privacy.flush_day; the stages do not import each other.
    return (report.start + timedelta(seconds=report.seconds, milliseconds=500)).astimezone(UTC).date().isoformat()


def open_for_vision(
    path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, runtime: Path | None = None, clock: Clock | None = None
) -> tuple[Outbox, int | None]:
    """Open or create the outbox, putting a damaged one aside first.

    Returns the outbox and, when one was put aside, the number of its generation (`outbox.db.damaged-<n>`).
    A folder that cannot be written, a full disk, or a schema of another version is a StorageError and
    leaves every file where it is.
    """

    def opened() -> Outbox:
        create(path)
        outbox = Outbox(path, max_bytes=max_bytes, clock=clock)
        try:
            outbox.check()
        except BaseException:
            outbox.close()
            raise
        return outbox

    try:
        return opened(), None
    except StorageError as error:
        if not is_damage(error.__cause__):
            raise
    generation = put_aside(path, runtime)
    return opened(), generation

"""What came, gathered into batches: landed as a segment, decoded, committed, and only then to be acknowledged.

Whatever fails is tried again, without a connection too; what is landed and not committed when all ends goes first at
the next start.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from edge.errors import SourceError, StorageError
from edge_aggregate.alarms import Teller
from edge_aggregate.ingest import ingest_files
from edge_aggregate.landing import Message
from edge_aggregate.store.fleet import HealthRow, StatusRow, write_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_aggregate.landing import Landing, Segment
    from edge_aggregate.metrics import Figures
    from edge_aggregate.store import Merged, Store

log = logging.getLogger("edge.aggregate")

BATCH_BYTES: Final = 16 << 20
"""Of payloads: what a segment has at most, and how much may lie here unlanded."""
BACKOFF_S: Final = 0.5, 30.0
"""First and longest wait before a broker, a store or a disk is tried again."""
HOLD_S: Final = 30.0
"""A store or a disk that takes nothing for so long: the connection is given up, and with it the claim to messages."""
FLEET_S: Final = 1.0
FLEET_ROWS: Final = 20_000
"""Of `status` and `health` each, between two writes: what is over is dropped, the next one says it again."""
BUSY_S: Final = 2.0
"""How long a commit waits for another program's, so that an end comes within 5 s."""


class StoreStuck(Exception):
    """Nothing could be kept for `HOLD_S`."""


class Batches:
    """See the module. Of one thread; a failure of store or disk is told, counted and tried again, and never raised.

    Args:
        landing: the log that segments are written to.
        open_store: opens the store; called again when a database had gone.
        figures: where what is done is counted.
        batch: messages of a segment and a commit, at most.
        every: seconds that a message waits for its commit, at most.

    """

    def __init__(
        self, landing: Landing, open_store: Callable[[], Store], figures: Figures, *, batch: int, every: float
    ) -> None:
        self._landing, self._open_store, self._figures = landing, open_store, figures
        self._batch, self._every = batch, every
        self._store: Store | None = None
        self._teller = Teller()
        self._buffer: list[Message] = []
        self._bytes = 0
        self._first = 0.0
        self._pending: list[Segment] = []
        self._retry_at = self._failing_since = 0.0
        self._wait = BACKOFF_S[0]
        self._statuses: list[StatusRow] = []
        self._healths: dict[tuple[str, str], HealthRow] = {}
        self._fleet_at = 0.0

    @property
    def settled(self) -> Store | None:
        """The store while all that is landed is in it; None otherwise."""
        return None if self._pending else self._store

    def recover(self) -> None:
        """Open the store; segments that an end, a crash or a power cut left uncounted go first.

        Raises StorageError when the store or the log cannot be used.
        """
        self._store = self._open_store()
        for path in self._landing.unsettled(self._store):
            try:
                done = ingest_files(self._store, [path])
            except SourceError as error:
                log.error("%s", error)
                continue
            self._count(done.merged)
            log.info("%s: %d lines were landed and not counted: done now", path.name, done.lines)

    def add(self, mid: int, topic: bytes, payload: bytes) -> None:
        """Take counts; called with each message."""
        now = time.time_ns() // 1_000_000
        figures = self._figures
        figures.messages += 1
        figures.unacknowledged += 1
        if not self._buffer:
            self._first = time.monotonic()
        if figures.oldest_ms is None:
            figures.oldest_ms = now
        self._buffer.append(Message(mid, topic.decode("utf-8", "backslashreplace"), payload, now))
        self._bytes += len(payload)

    def add_fleet(self, found: HealthRow | StatusRow) -> None:
        """Take what a device said of itself."""
        if isinstance(found, HealthRow):
            key = found.device, found.site  # of a kiosk that was moved, both places' are retained
            if len(self._healths) < FLEET_ROWS or key in self._healths:
                self._healths[key] = found
        elif len(self._statuses) < FLEET_ROWS:
            self._statuses.append(found)

    def patience(self) -> float:
        """Seconds that may be waited for more, .1 at most."""
        if not self._buffer or time.monotonic() < self._retry_at:
            return 0.1
        return min(0.1, max(0.0, self._first + self._every - time.monotonic()))

    def tend(self, acknowledge: Callable[[list[int]], None]) -> None:
        """Do what is due; called often. `acknowledge` gets the packets whose messages are committed.

        Raises StoreStuck when nothing could be kept for `HOLD_S`, and what `acknowledge` raises.
        """
        now = time.monotonic()
        if now < self._retry_at:
            self._overdue(now)
            return
        full = len(self._buffer) >= self._batch or self._bytes >= BATCH_BYTES
        if self._pending or full or (self._buffer and now - self._first >= self._every):
            self._flush(acknowledge)
        if now >= self._fleet_at and (self._statuses or self._healths):
            self._fleet_at = now + FLEET_S
            self._write_fleet()

    def finish(self, acknowledge: Callable[[list[int]], None]) -> None:
        """The last batch, at once."""
        if self._buffer or self._pending:
            self._retry_at = 0.0
            self._flush(acknowledge)
        if self._pending:
            log.warning("%d segments are landed and not counted: the next start counts them", len(self._pending))

    def let_go(self) -> None:
        """The connection is gone: its packets cannot be acknowledged, and what was not landed will come again."""
        self._buffer.clear()
        self._bytes = 0
        for segment in self._pending:
            segment.mids.clear()
        self._figures.unacknowledged = 0
        self._figures.oldest_ms = None

    def mend(self, stopping: Callable[[], bool]) -> None:
        """Without a connection, until the disk and the store take what they are given."""
        while not stopping():
            try:
                self._landing.probe()
            except StorageError as error:
                self._figures.landing_errors += 1
                self._failed("landing", error)
            else:
                if self._commit():
                    self._pending.clear()
                    return
            sleep(self._retry_at - time.monotonic(), stopping)

    def store_failed(self, error: StorageError) -> None:
        """Say that the store gave this up, here or elsewhere; it is opened anew, later."""
        self._figures.store_errors += 1
        self.close()
        self._failed("store", error)

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _overdue(self, now: float) -> None:
        """Give up the connection rather than hoard: others of the group, or we later, get what is not acknowledged."""
        if self._failing_since and (now - self._failing_since > HOLD_S or self._bytes > 2 * BATCH_BYTES):
            self._land()  # a group's broker forgets what it had sent to one who leaves
            log.error("nothing could be kept for %.0f s: hanging up until it can", now - self._failing_since)
            raise StoreStuck

    def _flush(self, acknowledge: Callable[[list[int]], None]) -> None:
        """Land, commit, acknowledge; on failure say so and set when it is tried again."""
        self._land()
        if self._pending and self._commit():
            mids = [mid for segment in self._pending for mid in segment.mids]
            self._pending.clear()
            self._figures.unacknowledged -= len(mids)
            self._figures.oldest_ms = self._buffer[0].received_ms if self._buffer else None
            acknowledge([mid for mid in mids if mid])

    def _land(self) -> None:
        batch = self._batch
        while self._buffer:
            try:
                segment = self._landing.write(self._buffer[:batch])
            except StorageError as error:
                self._figures.landing_errors += 1
                self._failed("landing", error)
                break
            self._pending.append(segment)
            taken, self._buffer = self._buffer[:batch], self._buffer[batch:]
            self._bytes -= sum(len(message.payload) for message in taken)
            self._first = time.monotonic()
            self._figures.segments += 1
            self._alarm(segment)

    def _commit(self) -> bool:
        """Whether all that is landed is in the store now."""
        try:
            if self._store is None:
                self._store = self._open_store()
            merged = self._store.merge([segment.batch for segment in self._pending])
        except StorageError as error:
            self.store_failed(error)
            return False
        now = time.time_ns() // 1_000_000
        self._count(merged, sum(len(segment.batch.dead) for segment in self._pending))
        self._figures.commits += 1
        if self._figures.oldest_ms is not None:
            self._figures.lag_ms = max(0, now - self._figures.oldest_ms)
        self._figures.committed_ms = now
        if self._failing_since:
            log.info("kept again: %d segments", len(self._pending))
        self._mended()
        return True

    def _mended(self) -> None:
        self._failing_since, self._wait = 0.0, BACKOFF_S[0]

    def _count(self, merged: Merged, known: int = 0) -> None:
        figures = self._figures
        figures.windows += merged.windows
        figures.duplicates += merged.duplicates
        figures.conflicts += merged.conflicts
        if (late := merged.dead - known) > 0:
            figures.dead["refused"] += late
            self._teller.say(
                "refused", f"{late} windows refused: absurd gaps, too many terms, or older than what is kept", more=late
            )
        if merged.conflicts:
            text = f"{merged.conflicts} conflicts: two payloads claim one window: `export --dead-letters` lists them"
            self._teller.say("conflict", text, level=logging.ERROR, more=merged.conflicts)

    def _alarm(self, segment: Segment) -> None:
        """Say what was refused; it is in the landing log and will be among the dead letters."""
        for _, dead in segment.batch.dead:
            self._figures.dead[dead.kind] += 1
            self._teller.say(f"dead {dead.kind}", f"refused on {(dead.topic or '')!a}: {dead.reason}")

    def _write_fleet(self) -> None:
        try:
            if self._store is None:
                self._store = self._open_store()
            write_fleet(self._store.engine, self._statuses, self._healths.values())
        except StorageError as error:
            self.store_failed(error)
            return
        self._figures.fleet += len(self._statuses) + len(self._healths)
        self._statuses.clear()
        self._healths.clear()
        if not (self._pending or self._buffer):  # else the next commit says whether all is well
            self._mended()

    def _failed(self, what: str, error: StorageError) -> None:
        now = time.monotonic()
        self._teller.say(what, f"{error}: not acknowledged, tried again", level=logging.ERROR)
        self._failing_since = self._failing_since or now
        self._retry_at = now + self._wait
        self._wait = min(self._wait * 2, BACKOFF_S[1])


def sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    """Wait, or until it is time to stop."""
    end = time.monotonic() + seconds
    while not stopping() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))

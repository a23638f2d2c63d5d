"""Vision's end of the outbox: closed windows wait here until they are on disk, whatever happens to the file."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from edge.errors import StorageError
from edge.outbox.outbox import open_for_vision
from edge.outbox.sqlite import explained, is_damage
from edge.process.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import StorageSection
    from edge.outbox.outbox import Held, Outbox
    from edge.outbox.rows import Key
    from edge.process.clock import Clock
    from edge.types import WindowReport

    Close = Callable[[Held, str | None], tuple[WindowReport, Held]]

log = logging.getLogger("edge.vision")

RETRY_S: Final = 5.0
WAITING_WINDOWS: Final = 1000
"""Windows kept in RAM while the outbox cannot be written; then the oldest is given up, and counted."""


class Recorder:
    """One run's windows on their way to the disk; `policy` as in `Outbox.begin_boot`. Raises StorageError.

    A file that is damaged or taken away under it is replaced by a new one, in which a new run begins that
    names this one as the run before: a subscriber sees what is missing.
    """

    def __init__(self, storage: StorageSection, clock: Clock, policy: str) -> None:
        self.given_up = 0
        self._storage, self._clock, self._policy = storage, clock, policy
        self._outbox: Outbox | None = self._open()
        self._device = self._mounted()
        self.paused = self._outbox.paused
        """What was asked for before this run, perhaps before a power cut."""
        self._last: Key | None = None
        self._pending: deque[Close] = deque(maxlen=WAITING_WINDOWS)
        self._retry_at = 0.0
        self.trouble: str | None = None
        """Why closed windows wait in RAM, in a word."""
        self.boot_id = secrets.token_hex(16)

    @property
    def waiting(self) -> int:
        """Closed windows that are not on disk yet."""
        return len(self._pending)

    def _open(self) -> Outbox:
        place = self._storage
        outbox, damaged = open_for_vision(
            place.outbox, max_bytes=place.max_bytes, runtime=place.runtime, clock=self._clock
        )
        if damaged is not None:
            log.error(event("outbox_quarantined", generation=damaged, next="check the SD card; keep the files"))
        return outbox

    def _mounted(self) -> int:
        with explained(self._storage.outbox):
            return self._storage.outbox.parent.stat().st_dev

    def begin(self) -> None:
        """Open the run `boot_id`, whose windows count from 1."""
        assert self._outbox is not None  # noqa: S101 - opened with this object
        self._begin(self._outbox)

    def _begin(self, outbox: Outbox) -> None:
        outbox.begin_boot(self.boot_id, self._clock.kernel_boot_id, policy=self._policy, prev=self._last)

    def _let_go(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close()

    def _reopen(self) -> None:
        """Go on with this run, or begin another in a file that does not know all of it."""
        if self._mounted() != self._device:
            msg = f"outbox {self._storage.outbox}: its filesystem is not mounted: mount it, or restart `edge vision`"
            raise StorageError(msg)
        outbox = self._open()
        try:
            recorded = self._last[1] if self._last is not None and self._last[0] == self.boot_id else 0
            found = outbox.resume_boot(self.boot_id)
            if found is None or found < recorded:
                self.boot_id = secrets.token_hex(16)
                self._begin(outbox)
                next_ = "see the line before, or who took the file away"
                log.error(event("outbox_renewed", boot_id=self.boot_id, next=next_))
            elif found > recorded:
                # Its COMMIT ended in an error, and yet the disk has it: once more would be twice.
                self._recorded(found)
        except BaseException:
            outbox.close()
            raise
        self._outbox = outbox

    def _recorded(self, seq: int) -> None:
        self._last = self.boot_id, seq
        self._pending.popleft()
        log.info(event("window_committed", boot_id=self.boot_id, seq=seq, waiting=len(self._pending)))

    def spent(self, day: str) -> Fraction:
        """Epsilon spent on a UTC day (YYYY-MM-DD), as the file remembers it."""
        return Fraction(0) if self._outbox is None else self._outbox.spent(day)

    def spend(self, day: str, epsilon: Fraction) -> None:
        """Add to a day's spending, from within a window's `close`: recorded with the window or not at all."""
        assert self._outbox is not None  # noqa: S101 - `close` runs inside its commit
        self._outbox.spend(day, epsilon)

    def put(self, close: Close) -> None:
        """Take a closed window, and record it if the disk lets us."""
        if len(self._pending) == WAITING_WINDOWS:
            self.given_up += 1
            log.error(event("window_given_up", waiting=len(self._pending), next="make room for the outbox"))
        self._pending.append(close)
        self.commit()

    def commit(self, *, last: bool = False) -> None:
        """Record waiting windows in order. A failing outbox is tried again every 5 s; `last` raises instead.

        Meanwhile its file is closed, unless there is but no room: a file system that turned read-only can only be
        repaired when nobody holds a file there.
        """
        if not self._pending or (time.monotonic() < self._retry_at and not last):
            return
        try:
            try:
                self._drain()
            except StorageError as error:
                if not is_damage(error.__cause__):
                    raise
                self._let_go()
                self._drain()
            self.trouble = None
        except StorageError as error:
            if last:
                msg = f"{error} ({len(self._pending)} windows could not be recorded)"
                raise StorageError(msg) from error
            if error.trouble not in {"full", "busy"}:
                self._let_go()
            self.trouble = error.trouble
            self._retry_at = time.monotonic() + RETRY_S
            log.error(event("commit_failed", waiting=len(self._pending), retry_s=RETRY_S, why=error))

    def _drain(self) -> None:
        while self._pending:
            if self._outbox is not None and self._outbox.replaced():
                self._let_go()
            if self._outbox is None:
                self._reopen()
                continue
            self._recorded(self._outbox.commit(self._pending[0]))

    def close(self) -> None:
        """Record what waits, or raise, and close the file."""
        try:
            self.commit(last=True)
        finally:
            if self._outbox is not None:
                self._outbox.close()

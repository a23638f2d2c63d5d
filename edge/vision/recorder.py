"""Vision's end of the outbox: closed windows wait here until they are on disk, whatever happens to the file.

Each is drawn once, as it closes, and written to vision's own ledger before the outbox hears of it: a commit that fails,
or is made to fail, is tried again with the same numbers.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.sqlite import bring_back, explained, is_damage, moved, put_aside
from edge.outbox.writer import open_for_vision
from edge.process.logs import event
from edge.vision.ledger import Ledger, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import StorageSection
    from edge.outbox.rows import Key
    from edge.outbox.writer import OutboxWriter
    from edge.process.clock import Clock
    from edge.types import WindowReport
    from edge.vision.privacy import Accumulators

    Close = Callable[[Accumulators, str | None], tuple[WindowReport, Accumulators]]

log = logging.getLogger("edge.vision")

RETRY_S: Final = 5.0
WAITING_WINDOWS: Final = 1000
"""Windows kept in RAM while the outbox cannot be written; then the oldest is given up, and counted."""


class Recorder:
    """One run's windows on their way to the disk; `policy` as in `Ledger`, `owner`: site/device. Raises StorageError.

    A file that is damaged or taken away under it is replaced by a new one, in which a new run begins that
    names this one as the run before: a subscriber sees what is missing. One of another device or site is replaced too.
    """

    def __init__(self, storage: StorageSection, clock: Clock, policy: str, owner: str) -> None:
        self.given_up = 0
        self._storage, self._clock, self._owner = storage, clock, owner
        outbox = self._open()
        self._device = self._mounted()
        self.ledger = Ledger(storage.outbox, clock, policy)
        self._unsaved = False
        self.paused = outbox.paused if outbox.current_boot() is not None else self.ledger.paused
        """What was commanded last, perhaps before a power cut; a new outbox knows of nothing."""
        last = self.ledger.last
        self._last: Key | None = last[1:] if last is not None and _device(last[0]) == _device(owner) else None
        if outbox.owner not in {None, owner}:
            self._leave(outbox)
        self._outbox: OutboxWriter | None = self._own(outbox)
        self._pending: deque[Waiting] = deque(maxlen=WAITING_WINDOWS)
        self._retry_at = 0.0
        self.trouble: str | None = None
        """Why closed windows wait in RAM, in a word."""
        self.boot_id = secrets.token_hex(16)

    @property
    def waiting(self) -> int:
        """Closed windows that are not on disk yet."""
        return len(self._pending)

    def _open(self) -> OutboxWriter:
        place = self._storage
        outbox, damaged = open_for_vision(
            place.outbox, max_bytes=place.max_bytes, runtime=place.runtime, clock=self._clock
        )
        if damaged is not None:
            log.error(event("outbox_quarantined", generation=damaged, next="check the SD card; keep the files"))
        return outbox

    def _leave(self, outbox: OutboxWriter) -> None:
        """Drop what the ledger holds of it, before its file goes: a power cut in between must not keep it."""
        if lost := sum(not outbox.holds(one.report) for one in self.ledger.waiting):
            log.error(event("windows_left", windows=lost, why="closed under another name, and never recorded"))
        self.ledger.leave()

    def _own(self, outbox: OutboxWriter) -> OutboxWriter:
        """The outbox, or a new one in place of another's: its windows would be counted once more under our name."""
        try:
            if (owner := outbox.owner) not in {None, self._owner}:
                paused, last, unsent = outbox.paused, outbox.last_run(), outbox.stats().unsent
                outbox.settle()
                outbox.close()
                with explained(self._storage.outbox):
                    number = put_aside(self._storage.outbox, None, "moved")
                file = f"{self._storage.outbox}.moved-{number}"
                next_ = "see `Another site or id` in docs/operate.md"
                log.warning(event("outbox_moved", of=owner, now=self._owner, file=file, unsent=unsent, next=next_))
                if self._last is None and _device(owner) == _device(self._owner):
                    self._last = last  # elsewhere now: a lost tail stays visible
                self._return()
                outbox = self._open()
                outbox.paused = paused
            if outbox.owner != self._owner:
                outbox.belong(self._owner)
        except BaseException:
            outbox.close()
            raise
        return outbox

    def _return(self) -> None:
        """Bring our own back, if it was put aside for a name that did not stay: a trial that was undone, say."""
        for aside in moved(self._storage.outbox):
            ours = False
            with suppress(StorageError), Outbox(aside) as before:
                ours = before.owner == self._owner
            if ours:
                with explained(self._storage.outbox):
                    bring_back(aside, self._storage.outbox)
                log.info(event("outbox_back", file=aside, owner=self._owner))
                return

    def _mounted(self) -> int:
        with explained(self._storage.outbox):
            return self._storage.outbox.parent.stat().st_dev

    def _check_mounted(self) -> None:
        if self._mounted() != self._device:
            msg = f"outbox {self._storage.outbox}: its filesystem is not mounted: mount it, or restart `edge vision`"
            raise StorageError(msg)

    def begin(self) -> None:
        """Open the run `boot_id`, whose windows count from 1; what the last run closed and did not record comes in."""
        outbox = self._outbox
        assert outbox is not None  # noqa: S101 - opened with this object
        if self.ledger.fresh:
            old = outbox.inherited()
            with suppress(ValueError, RecursionError):
                held, spent = (json.loads(old.get(name, "null")) for name in ("accumulators", "spent"))
                self.ledger.inherit(old.get("policy"), held, old.get("flush_day"), spent)
            self.ledger.save(())
            if old:
                outbox.disinherit()
        self._begin(outbox)
        self._pending.extend(one for one in self.ledger.waiting if not outbox.holds(one.report))
        if self._pending:
            log.warning(event("windows_recovered", windows=len(self._pending), why="closed before the last run ended"))

    def remember(self, *, paused: bool) -> None:
        """Note what was commanded last, for a start at which the outbox is damaged or gone; after `begin`."""
        self.paused = paused
        if paused != self.ledger.paused:
            self.ledger.paused = paused
            with suppress(StorageError):  # it is noted with the next window
                self._check_mounted()
                self.ledger.save(self._pending)

    def _begin(self, outbox: OutboxWriter) -> None:
        if self.paused and outbox.current_boot() is None:
            outbox.paused = True  # it is new, and the publisher asks it
        outbox.begin_boot(self.boot_id, self._clock.kernel_boot_id, prev=self._last)

    def _let_go(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close()

    def _reopen(self) -> None:
        """Go on with this run, or begin another in a file that does not know all of it."""
        self._check_mounted()
        outbox = self._own(self._open())
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
        self.ledger.last = self._owner, *self._last
        self._pending.popleft()
        log.info(event("window_committed", boot_id=self.boot_id, seq=seq, waiting=len(self._pending)))

    def put(self, close: Close) -> None:
        """Draw a closed window, and record it if the disk lets us.

        `close` gets what is held and the UTC day of the last flush (None at first), and returns the report and what is
        held from now on. It is called once.
        """
        if len(self._pending) == WAITING_WINDOWS:
            self.given_up += 1
            log.error(event("window_given_up", waiting=len(self._pending), next="make room for the outbox"))
        self._pending.append(self.ledger.closed(*close(self.ledger.held, self.ledger.flush_day)))
        self._unsaved = True
        self.commit()

    def commit(self, *, last: bool = False) -> None:
        """Record waiting windows in order. A failing outbox is tried again every 5 s; `last` raises instead.

        Meanwhile its file is closed, unless there is but no room: a file system that turned read-only can only be
        repaired when nobody holds a file there.
        """
        if not self._pending or (time.monotonic() < self._retry_at and not last):
            return
        try:
            if self._unsaved:
                self._check_mounted()
                self.ledger.save(self._pending)
                self._unsaved = False
            try:
                self._drain()
            except StorageError as error:
                if not is_damage(error.__cause__):
                    raise
                self._let_go()
                self._drain_elsewhere()
            self.trouble = None
            with suppress(StorageError):  # costs no more than a comparison at the next start
                self.ledger.save(())
        except StorageError as error:
            if last:
                msg = f"{error} ({len(self._pending)} windows could not be recorded)"
                raise StorageError(msg) from error
            if error.trouble not in {"full", "busy"}:
                self._let_go()
            self.trouble = error.trouble
            self._retry_at = time.monotonic() + RETRY_S
            log.error(event("commit_failed", waiting=len(self._pending), retry_s=RETRY_S, why=error))

    def _drain_elsewhere(self) -> None:
        """Into the file as a fresh look finds it, or, when that takes no window either, into a new one."""
        try:
            self._drain()
        except StorageError as error:
            if not is_damage(error.__cause__):
                raise
            self._let_go()
            with explained(self._storage.outbox):
                generation = put_aside(self._storage.outbox, self._storage.runtime)
            log.error(event("outbox_quarantined", generation=generation, why=error))
            self._drain()

    def _drain(self) -> None:
        while self._pending:
            if self._outbox is not None and self._outbox.replaced():
                self._let_go()
            if self._outbox is None:
                self._reopen()
                continue
            window = self._pending[0]
            self._recorded(self._outbox.commit(window.report, window.kernel))

    def close(self) -> None:
        """Record what waits, or raise, and close the file."""
        try:
            self.commit(last=True)
        finally:
            if self._outbox is not None:
                self._outbox.close()


def _device(owner: str | None) -> str:
    return str(owner).partition("/")[2]

"""The publisher's hold on the outbox: opened when it is there, let go of when it fails, followed when replaced."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import EdgeError, StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import VisionFile, read_command, write_command
from edge.outbox.sqlite import explained
from edge.process.logs import event
from edge.publisher.backoff import LONGEST_RETRY_S, Backoff
from edge.publisher.health import runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import Config
    from edge.process.clock import Clock
    from edge.publisher.dispatch import Dispatcher

log = logging.getLogger("edge.publisher")


class OutboxWatch:
    """`outbox` is None until there is one and while it cannot be used; `boot_id` is the latest run's in it."""

    def __init__(
        self, config: Config, clock: Clock, dispatcher: Dispatcher, complain: Callable[[str, EdgeError], None]
    ) -> None:
        self._path = Path(config.storage.outbox)
        self._runtime = Path(config.storage.runtime)
        self._clock, self._dispatcher, self._complain = clock, dispatcher, complain
        self._backoff = Backoff()
        self._failed_at = 0.0
        self.outbox: Outbox | None = None
        self.boot_id: str | None = None

    def attend(self, figures: VisionFile | None) -> bool:
        """Open, follow, let go; True when the connection must be a new one. Raises StorageError.

        It must when the file was replaced (what is in flight belongs to the old one, its answers must not mark the new
        one's rows) and when a new run of vision began (birth and will carry its boot_id, a will is fixed at CONNECT).
        """
        if figures and figures.trouble not in {None, "full", "busy"} and runs(figures, self._clock.monotonic()):
            # Here nothing may be to be written, and yet a file held open would be in the way of a repair.
            if self.outbox is not None:
                error = StorageError(f"outbox {self._path}: vision cannot write it ({figures.trouble}): see its log")
                error.trouble = str(figures.trouble)
                raise error
            return False
        anew = False
        if self.outbox is not None and self.outbox.replaced():
            log.warning(event("outbox-replaced", path=self._path, next="reopened; see vision's log for why"))
            self.close()
            anew = True
        if self.outbox is None and not self._backoff.left:
            self._open()
        if self.outbox is not None and (boot := self.outbox.current_boot()) != self.boot_id:
            self.boot_id = boot
            anew = True
        return anew

    def _open(self) -> None:
        with explained(self._path):
            if not (self._path.exists() and self._path.stat().st_size):
                return
        outbox = Outbox(self._path, clock=self._clock)
        try:
            if self._dispatcher.trouble is not None:
                outbox.check_writable()
                self._dispatcher.mark(outbox)
                log.info(event("outbox-back", path=self._path))
        except StorageError:
            outbox.close()
            raise
        self.outbox, self._dispatcher.trouble = outbox, None
        self._recall_pause(outbox)

    def lose(self, error: StorageError) -> None:
        """Close it, so that its filesystem can be repaired; the broker is told why, the connection stays."""
        self._complain("outbox-unusable", error)
        self.close()
        self._dispatcher.trouble = error.trouble
        now = time.monotonic()
        if now - self._failed_at >= 2 * LONGEST_RETRY_S:
            self._backoff.shrink()
        self._failed_at = now
        self._backoff.fail()

    def close(self) -> None:
        """Let go of it."""
        if self.outbox is not None:
            self.outbox.close()
            self.outbox = None

    def drained(self) -> bool:
        """Whether nothing is left to send: no unsent row, or no outbox at all."""
        with explained(self._path):
            return not self._path.exists() if self.outbox is None else self.outbox.stats().unsent == 0

    def _recall_pause(self, outbox: Outbox) -> None:
        """After a power cut the runtime folder is empty: put the pause back that the outbox remembers.

        The other way round for an outbox that was away when the command came, or is a new one in a damaged one's place.
        """
        try:
            command, paused = read_command(self._runtime), outbox.paused
            if command is None and paused:
                write_command(self._runtime, "pause")
                log.info(event("command", command="pause", why="asked for before the restart"))
            elif command is not None and command.paused != paused:
                outbox.paused = command.paused
        except StorageError as error:
            self._complain("pause-unwritten", error)

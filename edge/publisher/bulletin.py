"""What the device says of itself: birth, health, `live`, and Home Assistant's announcement; counts are `dispatch`'s."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from edge.contract import ContractError, Status, decode, encode
from edge.outbox.rows import OutboxStats
from edge.process.logs import event
from edge.publisher.health import BEAT_S, Sampler, unheard
from edge.publisher.home_assistant import Announcer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.contract import Topics
    from edge.outbox.outbox import Outbox
    from edge.outbox.rows import Key, Row
    from edge.outbox.runtime_files import VisionFile
    from edge.process.clock import Clock
    from edge.publisher.session import Incoming, Session
    from edge.publisher.timestamps import Labels

log = logging.getLogger("edge.publisher")

ECHOES: Final = 10
"""Of `health` between two beats, at once, when a pause or trouble comes and goes; more come one every `ECHO_S`."""
ECHO_S: Final = 6.0
SILENT_S: Final = 180.0
"""Vision's time to start, by its unit: who has not been heard of for longer does not run, whatever health last said."""
SILENT: Final = "no-vision"
REASSERT_S: Final = 60.0
"""Between two births said again, or twins would answer each other for ever."""


class Tell(Protocol):
    """How a message goes out; its id, or None where the broker takes none so large."""

    def __call__(
        self, session: Session, topic: str, payload: bytes, *, retain: bool = False, expiry: int | None = None
    ) -> int | None:
        """As `Session.publish`."""
        ...


class Bulletin:
    """Decides when each of them is due."""

    def __init__(
        self,
        topics: Topics,
        clock: Clock,
        labels: Labels,
        tell: Tell,
        certificate_days: Callable[[], float | None],
        home_assistant: str | None,
    ) -> None:
        self._topics, self._clock, self._labels, self._tell = topics, clock, labels, tell
        self._certificate_days = certificate_days
        self._announcer = Announcer(home_assistant, topics, clock)
        self.subscriptions = self._announcer.subscriptions
        self._announcement: int | None = None
        """The message id of the announcement, until something sent after it was answered."""
        self._birth: Status | None = None
        self._health_at = self._reassert_at = 0.0
        self._heard_at = clock.monotonic()
        """When vision last had figures; its folder is empty after a boot."""
        self._live: Key | None = None
        self._told: tuple[str, bool, str | None] | None = None
        self._stats = OutboxStats(0, 0.0, 0, 0)
        self._echoes, self._echoes_at = float(ECHOES), clock.monotonic()
        self._sampler = Sampler(clock)

    def greet(self, session: Session, birth: Status) -> None:
        """Say the birth; everything else follows with the first `send`."""
        self._birth, self._announcement = birth, None
        self._tell(session, self._topics("status"), encode(birth), retain=True)
        self._announcer.connected()
        self._health_at, self._live = 0.0, None

    def lost(self, *, early: bool) -> None:
        """The connection broke; `early`: before it had proven itself."""
        if early and self._announcement is not None:
            self._announcer.hung_up()
        self._announcement = None

    def answered(self, mid: int) -> None:
        """The broker has answered this message."""
        if self._announcement is not None and mid > self._announcement:
            self._announcement = None
            self._announcer.survived()

    def hear(self, message: Incoming) -> None:
        """Take note of Home Assistant's birth."""
        self._announcer.hear(message)

    def window_closed(self) -> None:
        """Health is due."""
        self._health_at = 0.0

    def send(
        self,
        outbox: Outbox | None,
        session: Session,
        figures: VisionFile | None,
        *,
        trouble: str | None,
        counts_first: bool,
    ) -> None:
        """Send what is due; `counts_first` keeps the announcement back. Raises BrokerUnavailable and StorageError."""
        if not counts_first and (announcement := self._announcer.due()):
            self._announcement = self._tell(session, *announcement, retain=True)
            self._health_at, self._live = 0.0, None  # what it is to show follows
        self._send_health(outbox, session, figures, trouble)
        if outbox is None:
            return
        last = outbox.last_released()
        if last is not None and last.key != self._live:
            self._live = last.key
            self._send_live(outbox, session, last)

    def _send_health(
        self, outbox: Outbox | None, session: Session, figures: VisionFile | None, own_trouble: str | None
    ) -> None:
        now = self._clock.monotonic()
        if figures is not None:
            self._heard_at = now
        silent = now - self._heard_at >= SILENT_S
        trouble = own_trouble or (figures.trouble if figures else SILENT if silent else None)
        if self._birth is not None and self._birth.trouble != trouble:  # status: there may be no figures to send
            self._birth = self._birth.model_copy(update={"trouble": trouble})
            self._tell(session, self._topics("status"), encode(self._birth), retain=True)
            if trouble == SILENT:
                log.warning(event("vision-unheard", after=f"{SILENT_S:.0f} s", next="journalctl -u edge-vision"))
        if silent and self._birth is not None and self._birth.boot_id is not None:  # what is retained may still say ok
            figures = unheard(self._birth.boot_id, self._clock, paused=outbox is not None and outbox.paused)
        if figures is None or (outbox is None and trouble is None):
            return
        # At a start of vision the file may still be the last run's: this run's health follows at once.
        state = figures.boot_id, figures.paused, trouble
        self._echoes = min(float(ECHOES), self._echoes + (now - self._echoes_at) / ECHO_S)
        self._echoes_at = now
        if now < self._health_at:
            if state == self._told or self._echoes < 1:
                return
            self._echoes -= 1
        self._health_at, self._told = now + BEAT_S, state
        if outbox is not None:
            self._stats = outbox.stats()
        told = self._sampler(figures, self._stats, self._certificate_days(), own_trouble)
        self._tell(session, self._topics("health"), encode(told), retain=True)

    def _send_live(self, outbox: Outbox, session: Session, row: Row) -> None:
        """The last released window again; retained only where the broker will forget it in time (MQTT 5)."""
        message = self._labels.message(outbox, row)
        if message is None:
            return
        same = row.kernel_boot_id == self._clock.kernel_boot_id
        now = self._clock.monotonic() if same else self._clock.utcnow().timestamp()
        age = max(0.0, now - (row.committed_mono if same else row.committed))
        left = int(2 * message.window.seconds - age)
        if left >= 1:
            self._tell(session, self._topics("live"), encode(message), retain=session.v5, expiry=left)

    def reassert(self, session: Session, payload: bytes) -> None:
        """A late will must not cover our birth: publish it again, but not in a duel with a twin."""
        now = self._clock.monotonic()
        try:
            seen = decode(Status, payload)
        except ContractError:
            return
        if self._birth is not None and seen.state != "online" and now >= self._reassert_at:
            self._reassert_at = now + REASSERT_S
            log.warning(event("status-covered", state=seen.state, next="two devices with this id? published again"))
            self._tell(session, self._topics("status"), encode(self._birth), retain=True)

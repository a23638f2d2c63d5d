"""What the publisher does over one connection: which row is sent next, what an answer means for it.

Rows go out oldest first, at most a window of them unacknowledged. An answer that is no success keeps the
row and slows the sending to one probe a minute until the broker takes it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from edge.contract import (
    ContractError,
    Counts,
    ReplayAnswer,
    ReplayCommand,
    Status,
    Topics,
    cloudevents,
    decode,
    encode,
    parse_topic,
)
from edge.errors import StorageError
from edge.outbox.rows import OutboxStats
from edge.outbox.runtime_files import write_command
from edge.process.logs import event
from edge.publisher.delivery_stats import Delivery
from edge.publisher.health import BEAT_S, Sampler
from edge.publisher.home_assistant import Announcer
from edge.publisher.reason_codes import FAILURE, NO_SUBSCRIBER, NOT_AUTHORISED, REASONS
from edge.publisher.timestamps import Labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.outbox.outbox import Outbox
    from edge.outbox.rows import Key, Row
    from edge.outbox.runtime_files import VisionFile
    from edge.process.clock import Clock
    from edge.publisher.session import Ack, Incoming, Session

log = logging.getLogger("edge.publisher")

RETRY_S: Final = 60.0
"""Pause after a publish that the broker did not take."""
GRACE_S: Final = 2.0
"""After a lost connection, subscribers get this long to come back before a row asks whether one is there."""
ECHOES: Final = 10
"""Of `health` between two beats, at once, when a pause or trouble comes and goes; more come one every `ECHO_S`."""
ECHO_S: Final = 6.0
UNSOUND_S: Final = 10.0
PRUNE_S: Final = 3600.0
REPLAYS: Final = 16
"""Replays waiting at once, at most."""


@dataclass(slots=True)
class _Replay:
    command: ReplayCommand
    answer_to: str
    correlation: bytes | None
    next_seq: int
    sent: int = 0


class Desk:
    """Decides and remembers what is in flight; knows no sockets and no files but `command.json`."""

    def __init__(
        self,
        topics: Topics,
        clock: Clock,
        *,
        hold: float,
        runtime: Path,
        certificate_days: Callable[[], float | None] = lambda: None,
        home_assistant: str | None = None,
    ) -> None:
        self._topics, self._clock, self._runtime = topics, clock, runtime
        self.labels, self._certificate_days = Labels(topics, clock, hold), certificate_days
        self.delivery = Delivery(clock)
        self._announcer = Announcer(home_assistant, topics, clock)
        self._flight: dict[int, Row | None] = {}
        self._replays: deque[_Replay] = deque()
        self._birth: Status | None = None
        self._pause_until = 0.0
        self._probing = False
        self._health_at = self._prune_at = self._reassert_at = self._unsound_at = 0.0
        self._echoes, self._echoes_at = float(ECHOES), self._clock.monotonic()
        self._sampler = Sampler(clock)
        self._denied: set[int] = set()
        self._live: Key | None = None
        self._told: tuple[str, bool, str | None] | None = None
        self._acked: list[Key] = []
        """What the broker took and the outbox does not know yet."""
        self._stats = OutboxStats(0, 0.0, 0, 0)
        self.trouble: str | None = None
        """Why the outbox cannot be used, in a word; rows wait meanwhile, and the broker is told."""
        self.refused = False
        """Whether the last answer to a row was "not authorised"."""

    @property
    def idle(self) -> bool:
        """Nothing waits for an acknowledgement and no replay is under way."""
        return not self._flight and not self._replays

    def drain(self) -> None:
        """Send everything now: no more waiting for the clock, and one more try for what was refused."""
        self.labels.waiting = False
        self._pause_until = 0.0

    def forget(self) -> None:
        """The connection is gone, and with it everything in flight; the outbox still has the rows."""
        self._flight.clear()
        self._replays.clear()

    def tend(self, outbox: Outbox) -> None:
        """What needs no broker: rows that are none, late labels, an end to old rows. Raises StorageError."""
        now = self._clock.monotonic()
        if now >= self._unsound_at:
            self._unsound_at = now + UNSOUND_S
            if unsound := outbox.refuse_unsound():
                log.error(event("rows-unsound", rows=unsound, next="kept aside; who else writes to the outbox?"))
        self.labels.settle(outbox)
        if now >= self._prune_at and self._clock.time_quality() == "synced":
            self._prune_at = now + PRUNE_S
            outbox.prune(self._clock.utcnow().date())

    # ---- out

    def greet(self, session: Session, birth: Status) -> None:
        """Begin a connection: birth, then subscriptions; health and live follow with the first `send`."""
        self.forget()
        self.delivery.connected()
        if self._birth is not None and self._birth.boot_id == birth.boot_id:
            self._pause_until, self._probing = self._clock.monotonic() + GRACE_S, True
        self._birth = birth
        self._note(session.publish(self._topics("status"), encode(birth), retain=True))
        session.subscribe(self._topics("cmd/+"), self._topics("status"), *self._announcer.subscriptions)
        self._announcer.connected()
        self._health_at, self._live = 0.0, None

    def send(self, outbox: Outbox | None, session: Session, figures: VisionFile | None) -> None:
        """Send what is due: rows, replays, health, live. Raises BrokerUnavailable and StorageError.

        Without an outbox, health, if only to say why there is none.
        """
        now = self._clock.monotonic()
        if outbox is not None and now >= self._pause_until:
            self._send_rows(outbox, session)
            self._send_replays(outbox, session)
        if announcement := self._announcer.due():
            self._note(session.publish(*announcement, retain=True))
            self._health_at, self._live = 0.0, None  # what it is to show follows
        self._send_health(outbox, session, figures)
        if outbox is None:
            return
        last = outbox.last_released()
        if last is not None and last.key != self._live:
            self._live = last.key
            self._send_live(outbox, session, last)

    def _send_health(self, outbox: Outbox | None, session: Session, figures: VisionFile | None) -> None:
        trouble = self.trouble or (None if figures is None else figures.trouble)
        if self._birth is not None and self._birth.trouble != trouble:  # status: there may be no figures to send
            self._birth = self._birth.model_copy(update={"trouble": trouble})
            self._note(session.publish(self._topics("status"), encode(self._birth), retain=True))
        if figures is None or (outbox is None and trouble is None):
            return
        now = self._clock.monotonic()
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
        told = self._sampler(figures, self._stats, self._certificate_days(), self.trouble)
        self._note(session.publish(self._topics("health"), encode(told), retain=True))

    def _room(self, session: Session) -> int:
        return (1 if self._probing else session.window) - len(self._flight)

    def _send_rows(self, outbox: Outbox, session: Session) -> None:
        room = self._room(session)
        if room <= 0:
            return
        flying = {row.key for row in self._flight.values() if row is not None}
        for row in outbox.unsent(room, excluding=flying):
            message = self.labels.message(outbox, row)
            if message is None:
                continue
            self._send_counts(session, message, row)
            self._health_at = 0.0  # a window has closed

    def _send_counts(self, session: Session, message: Counts, row: Row) -> None:
        user = cloudevents(message) if session.v5 else None
        mid = session.publish(self._topics("counts"), encode(message), user=user)
        self._flight[mid] = row
        self.delivery.sent(mid)

    def _send_replays(self, outbox: Outbox, session: Session) -> None:
        while self._replays:
            replay = self._replays[0]
            wanted = replay.command
            rows = outbox.between(wanted.boot_id, replay.next_seq, wanted.to)
            for row in rows:
                if self._room(session) <= 0:
                    return
                message = self.labels.message(outbox, row) if row.sent else None
                if message is not None:
                    self._send_counts(session, message, row)
                replay.sent += message is not None or not row.sent  # an unsent row comes by itself
                replay.next_seq = row.seq + 1
            if rows:
                continue
            self._replays.popleft()
            asked = wanted.to - wanted.from_ + 1
            answer = ReplayAnswer(id=wanted.id, sent=replay.sent, gone=asked - replay.sent)
            self._note(session.publish(replay.answer_to, encode(answer), correlation=replay.correlation))
            log.info(event("replay", id=wanted.id, sent=answer.sent, gone=answer.gone))

    def _send_live(self, outbox: Outbox, session: Session, row: Row) -> None:
        """The last released window again; retained only where the broker will forget it in time (MQTT 5)."""
        message = self.labels.message(outbox, row)
        if message is None:
            return
        same = row.kernel_boot_id == self._clock.kernel_boot_id
        now = self._clock.monotonic() if same else self._clock.utcnow().timestamp()
        age = max(0.0, now - (row.committed_mono if same else row.committed))
        left = int(2 * message.window.seconds - age)
        if left >= 1:
            self._note(session.publish(self._topics("live"), encode(message), retain=session.v5, expiry=left))

    def _note(self, mid: int) -> None:
        self._flight[mid] = None
        self.delivery.sent(mid)

    # ---- in

    def receive(self, outbox: Outbox | None, session: Session) -> None:
        """Take in what `Session.step` gathered: acknowledgements, commands, our own status."""
        acks, session.acks[:] = list(session.acks), []
        sent: list[Key] = []
        for ack in acks:
            row = self._flight.pop(ack.mid, None)
            taken = ack.code < FAILURE and ack.code != NO_SUBSCRIBER
            self.delivery.answered(ack.mid, taken=taken or (row is None and ack.code == NO_SUBSCRIBER))
            if taken:
                if row is not None:
                    sent.append(row.key)
            elif row is not None:
                self._not_taken(ack)
            elif ack.code != NO_SUBSCRIBER and ack.code not in self._denied:
                self._denied.add(ack.code)
                log.warning(event("publish-denied", code=f"0x{ack.code:02X}", why=REASONS.get(ack.code, "unknown")))
        if sent:
            self._acked += sent
            self._probing = self.refused = False
        if outbox is not None:
            self.mark(outbox)
        incoming, session.incoming[:] = list(session.incoming), []
        for message in incoming:
            self._take(outbox, session, message)

    def mark(self, outbox: Outbox) -> None:
        """Tell the outbox what the broker took. What cannot be told now is told later, or it would be sent again."""
        if self._acked:
            outbox.mark_sent(self._acked)
            self._acked.clear()

    def _not_taken(self, ack: Ack) -> None:
        now = self._clock.monotonic()
        if self._probing and now < self._pause_until:
            return  # the rest of a batch that got the same answer
        self._pause_until, self._probing = now + RETRY_S, True
        self.refused = ack.code == NOT_AUTHORISED
        topic = self._topics("counts")
        code = f"0x{ack.code:02X}"
        if ack.code == NO_SUBSCRIBER:
            log.warning(event("no-subscriber", code=code, topic=topic, next="rows are kept, retried each minute"))
        elif ack.code == NOT_AUTHORISED:
            log.error(event("alarm", code=code, topic=topic, next="let this device write there, in the broker's ACL"))
        else:
            why = REASONS.get(ack.code, "unknown reason: see the broker's log")
            log.error(event("alarm", code=code, topic=topic, why=why, next="rows are kept, retried each minute"))

    def _take(self, outbox: Outbox | None, session: Session, message: Incoming) -> None:
        self._announcer.hear(message)
        try:
            topics, leaf = parse_topic(message.topic)
        except ContractError:
            return
        if topics != self._topics:
            return
        if leaf == "status":
            self._reassert(session, message.payload)
        elif message.retained:
            log.warning(event("command-ignored", topic=message.topic, why="it is retained", next="clear it"))
        elif leaf == "cmd/replay":
            self._take_replay(message)
        elif leaf == "cmd/paused":
            switch: dict[bytes, Literal["pause", "resume"]] = {b"true": "pause", b"false": "resume"}
            if message.payload in switch:
                self._command(outbox, message.topic, switch[message.payload])
            else:
                log.warning(event("command-ignored", topic=message.topic, next="send true or false"))
        elif leaf in {"cmd/pause", "cmd/resume", "cmd/identify"}:
            self._command(outbox, message.topic, leaf.removeprefix("cmd/"))  # type: ignore[arg-type] # one of the three

    def _command(self, outbox: Outbox | None, topic: str, command: Literal["pause", "resume", "identify"]) -> None:
        try:
            written = write_command(self._runtime, command)
            log.info(event("command", command=command, number=written.number, paused=written.paused))
            if outbox is not None and outbox.paused != written.paused:
                outbox.paused = written.paused
        except StorageError as error:
            log.error(event("command-lost", topic=topic, why=error))

    def _reassert(self, session: Session, payload: bytes) -> None:
        """A late will must not cover our birth: publish it again, but not in a duel with a twin."""
        now = self._clock.monotonic()
        try:
            seen = decode(Status, payload)
        except ContractError:
            return
        if self._birth is not None and seen.state != "online" and now >= self._reassert_at:
            self._reassert_at = now + RETRY_S
            log.warning(event("status-covered", state=seen.state, next="two devices with this id? published again"))
            self._note(session.publish(self._topics("status"), encode(self._birth), retain=True))

    def _take_replay(self, message: Incoming) -> None:
        try:
            command = decode(ReplayCommand, message.payload)
        except ContractError as error:
            log.warning(event("replay-refused", why=error))
            return
        if len(self._replays) >= REPLAYS:
            log.warning(event("replay-refused", id=command.id, why="too many at once", next="ask again later"))
            return
        to = message.response_topic
        if not to or "+" in to or "#" in to:
            to = self._topics(f"reply/{command.id}")
        self._replays.append(_Replay(command, to, message.correlation, command.from_))

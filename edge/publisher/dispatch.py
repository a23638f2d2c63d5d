"""What the publisher does over one connection: which row is sent next, what an answer means for it.

Rows go out oldest first, at most a window of them unacknowledged. An answer that is no success keeps the
row and slows the sending to one probe a minute until the broker takes one (`doubted.py`: which).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from edge.contract import (
    ContractError,
    Counts,
    ReplayAnswer,
    Status,
    Topics,
    cloudevents,
    encode,
    parse_topic,
)
from edge.process.logs import event
from edge.publisher.bulletin import Bulletin
from edge.publisher.delivery_stats import Delivery
from edge.publisher.doubted import Doubted, named
from edge.publisher.mqtt_client import TooLarge
from edge.publisher.reason_codes import FAILURE, NO_SUBSCRIBER, NOT_AUTHORISED, QUOTA, REASONS
from edge.publisher.remote_commands import UNREADABLE, Commands
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
UNSOUND_S: Final = 10.0
"""Between two looks for rows that are none."""
PRUNE_S: Final = 3600.0
DEAF_S: Final = 3600.0
"""After a packet that no client should read, nothing is subscribed to for so long: a retained one comes each time."""


class Dispatcher:
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
        self._topics, self._clock = topics, clock
        self.labels = Labels(topics, clock, hold)
        self.delivery = Delivery(clock)
        self._bulletin = Bulletin(topics, clock, self.labels, self._tell, certificate_days, home_assistant)
        self._commands = Commands(topics, clock, runtime, home_assistant)
        self._flight: dict[int, Row | None] = {}
        self._too_large: dict[str, int] = {}
        """Topics whose message the broker does not take, and the limit it gave."""
        self._held: set[Key] = set()
        """Rows over that limit."""
        self._doubted = Doubted(clock)
        self._deaf_until = 0.0
        self._deaf = False
        self._greeted: str | None = ""
        """The boot_id of the last birth."""
        self._pause_until = 0.0
        self._probing = False
        self._prune_at = self._unsound_at = 0.0
        self._denied: set[int] = set()
        self._unheard: set[tuple[str, int]] = set()
        self._acked: list[Key] = []
        """What the broker took and the outbox does not know yet."""
        self.trouble: str | None = None
        """Why the outbox cannot be used, in a word; rows wait meanwhile, and the broker is told."""
        self.refused = False
        """Whether the last answer to a row was "not authorised"."""

    @property
    def idle(self) -> bool:
        """Nothing waits for an acknowledgement and no replay is under way."""
        return not self._flight and not self._commands.replays

    def drain(self) -> None:
        """Send everything now: no more waiting for the clock, and one more try for what was refused."""
        self.labels.waiting = False
        self._pause_until = 0.0
        self._doubted.clear()

    def forget(self) -> None:
        """The connection is gone, and with it everything in flight; the outbox still has the rows."""
        self._flight.clear()
        self._held.clear()
        self._commands.replays.clear()

    def lost(self, *, early: bool, flooded: bool = False) -> None:
        """The connection broke; `early`: before it had proven itself, `flooded`: by what came in."""
        if flooded:
            self._deaf_until = self._clock.monotonic() + DEAF_S
            log.error(
                event("commands-off", after=f"{DEAF_S:.0f} s again", next="clear what is retained on cmd/ topics")
            )
        self._bulletin.lost(early=early)
        self._doubted.hung_up([row.key for row in self._flight.values() if row is not None and not row.sent])
        self.forget()

    def tend(self, outbox: Outbox | None) -> None:
        """What needs no broker: commands, rows that are none, late labels, an end to old rows. Raises StorageError."""
        self._commands.tend(outbox)
        if outbox is None:
            return
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
        if self._greeted == birth.boot_id:
            self._pause_until, self._probing = self._clock.monotonic() + GRACE_S, True
        self._greeted = birth.boot_id
        self._bulletin.greet(session, birth)
        self._deaf = True
        self._listen(session)

    def _listen(self, session: Session) -> None:
        if self._deaf and self._clock.monotonic() >= self._deaf_until:
            self._deaf = False
            session.subscribe(self._topics("cmd/+"), self._topics("status"), *self._bulletin.subscriptions)

    def send(self, outbox: Outbox | None, session: Session, figures: VisionFile | None) -> None:
        """Send what is due: rows, replays, health, live. Raises BrokerUnavailable and StorageError.

        Without an outbox, health, if only to say why there is none. Counts come first: the announcement, larger than
        all else, waits for their answers, as a broker may hang up on it.
        """
        now = self._clock.monotonic()
        if outbox is not None and now >= self._pause_until:
            self._send_rows(outbox, session)
            self._send_replays(outbox, session)
        waiting = any(row is not None for row in self._flight.values())
        self._bulletin.send(outbox, session, figures, trouble=self.trouble, counts_first=waiting)
        self._listen(session)

    def _room(self, session: Session) -> int:
        return (1 if self._probing else session.window) - len(self._flight)

    def _send_rows(self, outbox: Outbox, session: Session) -> None:
        room = self._room(session)
        if room <= 0:
            return
        flying = {row.key for row in self._flight.values() if row is not None}
        rows = outbox.unsent(room, excluding=flying | self._held | self._doubted.waiting)
        if not rows and not flying and self._doubted.ask_again():
            rows = outbox.unsent(room, excluding=self._held | self._doubted.waiting)
        for row in rows:
            message = self.labels.message(outbox, row)
            if message is None:
                continue
            self._send_counts(session, message, row)
            self._bulletin.window_closed()
        if len(self._held) >= session.window:  # not one among many, but all of them: look again when it may be mended
            self._held.clear()
            self._pause_until = self._clock.monotonic() + RETRY_S

    def _send_counts(self, session: Session, message: Counts, row: Row) -> bool:
        """Whether it went out: a row over the broker's packet size is held back, and holds up no other."""
        user = cloudevents(message) if session.v5 else None
        try:
            mid = session.publish(self._topics("counts"), encode(message), user=user)
        except TooLarge as error:
            self._held.add(row.key)
            self._say_too_large(self._topics("counts"), error)
            return False
        self._flight[mid] = row
        self.delivery.sent(mid)
        return True

    def _send_replays(self, outbox: Outbox, session: Session) -> None:
        replays = self._commands.replays
        while replays:
            replay = replays[0]
            wanted = replay.command
            rows = outbox.between(wanted.boot_id, replay.next_seq, wanted.to)
            for row in rows:
                if self._room(session) <= 0:
                    return
                message = self.labels.message(outbox, row) if row.sent else None
                again = message is not None and self._send_counts(session, message, row)
                replay.sent += again or not row.sent  # an unsent row comes by itself
                replay.next_seq = row.seq + 1
            if rows:
                continue
            replays.popleft()
            asked = wanted.to - wanted.from_ + 1
            answer = ReplayAnswer(id=wanted.id, sent=replay.sent, gone=asked - replay.sent)
            self._tell(session, replay.answer_to, encode(answer), correlation=replay.correlation)
            log.info(event("replay", id=wanted.id, sent=answer.sent, gone=answer.gone))

    def _tell(self, session: Session, topic: str, payload: bytes, **options: Any) -> int | None:  # noqa: ANN401 - of `publish`
        """Publish what is no row; its message id, or None where the broker takes none so large."""
        try:
            mid = session.publish(topic, payload, **options)
        except TooLarge as error:
            self._say_too_large(topic, error)
            return None
        self._flight[mid] = None
        self.delivery.sent(mid)
        return mid

    def _say_too_large(self, topic: str, error: TooLarge) -> None:
        if self._too_large.get(topic) != error.limit:  # once, and again when the limit has changed
            self._too_large[topic] = error.limit
            log.error(event("too-large", topic=topic, bytes=error.size, limit=error.limit, next=error))

    # ---- in

    def receive(self, outbox: Outbox | None, session: Session) -> None:
        """Take in what `Session.step` gathered: acknowledgements, commands, our own status."""
        acks, session.acks[:] = list(session.acks), []
        for ack in acks:
            self._answered(ack)
        for topic, code in sorted(set(session.denied) - self._unheard):
            why = REASONS.get(code, "unknown")
            log.warning(event("subscription-denied", topic=topic, code=f"0x{code:02X}", why=why))
        self._unheard.update(session.denied)
        session.denied.clear()
        if outbox is not None:
            self.mark(outbox)
        incoming, session.incoming[:] = list(session.incoming), []
        for message in incoming:
            try:
                self._take(session, message)
            except UNREADABLE as error:
                self._commands.refuse(message, error)
        self._commands.tend(outbox)

    def _answered(self, ack: Ack) -> None:
        row = self._flight.pop(ack.mid, None)
        self._bulletin.answered(ack.mid)
        taken = ack.code < FAILURE and ack.code != NO_SUBSCRIBER
        self.delivery.answered(ack.mid, taken=taken or (row is None and ack.code == NO_SUBSCRIBER))
        if taken and row is not None:
            self._probing = self.refused = False
            self._doubted.taken(row.key)
            if not row.sent:  # a replayed row is marked already
                self._acked.append(row.key)
        elif row is not None:
            self._not_taken(ack, row)
        elif not taken and ack.code != NO_SUBSCRIBER and ack.code not in self._denied:
            self._denied.add(ack.code)
            log.warning(event("publish-denied", code=f"0x{ack.code:02X}", why=REASONS.get(ack.code, "unknown")))

    def mark(self, outbox: Outbox) -> None:
        """Tell the outbox what the broker took. What cannot be told now is told later, or it would be sent again."""
        if self._acked:
            outbox.mark_sent(self._acked)
            self._acked.clear()

    def _not_taken(self, ack: Ack, row: Row) -> None:
        now = self._clock.monotonic()
        why = REASONS.get(ack.code, "unknown reason: see the broker's log")
        if ack.code not in {NO_SUBSCRIBER, NOT_AUTHORISED} and not row.sent:
            self._doubted.refused(row.key, why, passing=ack.code == QUOTA)
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
            after = "rows are kept, another one asks in a minute"
            log.error(event("alarm", code=code, topic=topic, row=named(row.key), why=why, next=after))

    def _take(self, session: Session, message: Incoming) -> None:
        self._bulletin.hear(message)
        try:
            topics, leaf = parse_topic(message.topic)
        except ContractError:
            return
        if topics != self._topics:
            return
        if leaf == "status":
            self._bulletin.reassert(session, message.payload)
        elif leaf.startswith("cmd/"):
            self._commands.take(message, leaf)

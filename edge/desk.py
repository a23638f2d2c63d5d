"""What the publisher does over one connection: which row is sent next, what an answer means for it.

Rows go out oldest first, at most a window of them unacknowledged. An answer that is no success keeps the
row and slows the sending to one probe a minute until the broker takes it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.contract import (
    ContractError,
    Counts,
    Health,
    OutboxFigures,
    Percentiles,
    ReplayAnswer,
    ReplayCommand,
    Status,
    Topics,
    cloudevents,
    counts_payload,
    decode,
    encode,
    parse_topic,
)
from edge.errors import StorageError
from edge.publish import event
from edge.refusal import FAILURE, NO_SUBSCRIBER, NOT_AUTHORISED, REASONS
from edge.runtime import write_command

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.outbox import Key, Outbox, Row
    from edge.publish import Ack, Incoming, Session
    from edge.runtime import VisionFile
    from edge.types import TimeQuality

log = logging.getLogger("edge.publisher")

RETRY_S: Final = 60.0
"""Pause after a publish that the broker did not take."""
GRACE_S: Final = 2.0
"""After a lost connection, subscribers get this long to come back before a row asks whether one is there."""
HEALTH_S: Final = 60.0
PRUNE_S: Final = 3600.0
REPLAYS: Final = 16
"""Replays waiting at once, at most."""
STALE_S: Final = 10.0
"""A vision file older than this is a service that does not run: its rate is 0."""
_THERMAL: Final = Path("/sys/class/thermal/thermal_zone0/temp")


@dataclass(slots=True)
class _Replay:
    command: ReplayCommand
    answer_to: str
    correlation: bytes | None
    next_seq: int
    sent: int = 0


class Desk:
    """Decides and remembers what is in flight; knows no sockets and no files but `command.json`."""

    def __init__(self, topics: Topics, clock: Clock, *, hold: float, runtime: Path) -> None:
        self._topics, self._clock, self._hold, self._runtime = topics, clock, hold, runtime
        self._flight: dict[int, Row | None] = {}
        self._replays: deque[_Replay] = deque()
        self._birth: Status | None = None
        self._draining = False
        self._pause_until = 0.0
        self._probing = False
        self._health_at = self._prune_at = self._reassert_at = 0.0
        self._denied: set[int] = set()
        self._live: Key | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits for an acknowledgement and no replay is under way."""
        return not self._flight and not self._replays

    def drain(self) -> None:
        """Send everything now: no more waiting for the clock, and one more try for what was refused."""
        self._draining = True
        self._pause_until = 0.0

    def forget(self) -> None:
        """The connection is gone, and with it everything in flight; the outbox still has the rows."""
        self._flight.clear()
        self._replays.clear()

    # ---- out

    def greet(self, session: Session, birth: Status) -> None:
        """Begin a connection: birth, then subscriptions; health and live follow with the first `send`."""
        self.forget()
        if self._birth is not None and self._birth.boot_id == birth.boot_id:
            self._pause_until, self._probing = self._clock.monotonic() + GRACE_S, True
        self._birth = birth
        self._note(session.publish(self._topics("status"), encode(birth), retain=True))
        session.subscribe(self._topics("cmd/+"), self._topics("status"))
        self._health_at, self._live = 0.0, None

    def send(self, outbox: Outbox, session: Session, figures: VisionFile | None) -> None:
        """Send what is due: rows, replays, health, live. Raises BrokerUnavailable and StorageError."""
        now = self._clock.monotonic()
        if now >= self._pause_until:
            self._send_rows(outbox, session)
            self._send_replays(outbox, session)
        if now >= self._health_at and figures is not None:
            self._health_at = now + HEALTH_S
            self._note(session.publish(self._topics("health"), encode(self._health(outbox, figures)), retain=True))
        last = outbox.last_released()
        if last is not None and last.key != self._live:
            self._live = last.key
            self._send_live(outbox, session, last)
        if now >= self._prune_at and self._clock.time_quality() == "synced":
            # Only by a clock that is to be believed, or a jump of a year would empty the ring.
            self._prune_at = now + PRUNE_S
            outbox.prune(self._clock.utcnow())

    def _room(self, session: Session) -> int:
        return (1 if self._probing else session.window) - len(self._flight)

    def _send_rows(self, outbox: Outbox, session: Session) -> None:
        room = self._room(session)
        if room <= 0:
            return
        flying = {row.key for row in self._flight.values() if row is not None}
        for row in outbox.unsent(room, excluding=flying):
            message = self._message(outbox, row)
            if message is None:
                continue
            self._send_counts(session, message, row)
            self._health_at = 0.0  # a window has closed

    def _send_counts(self, session: Session, message: Counts, row: Row) -> None:
        user = cloudevents(message) if session.v5 else None
        mid = session.publish(self._topics("counts"), encode(message), user=user)
        self._flight[mid] = row

    def _message(self, outbox: Outbox, row: Row) -> Counts | None:
        """The row's payload; None while it waits for the clock, and for good when it cannot be sent."""
        try:
            report, label = row.report(), row.label
            if report.time_quality == "unsynced" and label is None:
                label = self._decide(row, report.mono_start, report.start)
                if label is None:
                    return None
                outbox.label(row.key, *label)
            start, quality = label or (report.start, report.time_quality)
            return counts_payload(
                report,
                site=self._topics.site,
                device=self._topics.device,
                boot_id=row.boot_id,
                seq=row.seq,
                prev=row.prev,
                start=start,
                time_quality=quality,
            )
        except (ValueError, ContractError) as error:
            log.error(event("row-unsendable", boot_id=row.boot_id, seq=row.seq, why=error, next="kept aside"))
            outbox.refuse([row.key])
            return None

    def _decide(self, row: Row, mono_start: float, start: datetime) -> tuple[datetime, TimeQuality] | None:
        """Label an unsynced window: by the clock if it is set in time, as it is if not; None: not yet."""
        if self._hold <= 0 or row.kernel_boot_id != self._clock.kernel_boot_id:
            return start, "unsynced"
        now = self._clock.monotonic()
        if now - row.committed_mono <= self._hold:
            if self._clock.time_quality() == "synced":
                return self._clock.utcnow() - timedelta(seconds=now - mono_start), "synced"
            if not self._draining:
                return None
        return start, "unsynced"

    def _send_replays(self, outbox: Outbox, session: Session) -> None:
        while self._replays:
            replay = self._replays[0]
            wanted = replay.command
            rows = outbox.between(wanted.boot_id, replay.next_seq, wanted.to)
            for row in rows:
                if self._room(session) <= 0:
                    return
                message = self._message(outbox, row) if row.sent else None
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
        message = self._message(outbox, row)
        if message is None:
            return
        same = row.kernel_boot_id == self._clock.kernel_boot_id
        now = self._clock.monotonic() if same else self._clock.utcnow().timestamp()
        age = max(0.0, now - (row.committed_mono if same else row.committed))
        left = int(2 * message.window.seconds - age)
        if left >= 1:
            self._note(session.publish(self._topics("live"), encode(message), retain=session.v5, expiry=left))

    def _health(self, outbox: Outbox, figures: VisionFile) -> Health:
        stats = outbox.stats()
        stale = figures.state == "ended" or self._clock.monotonic() - figures.updated > STALE_S
        return Health(
            boot_id=figures.boot_id,
            backend=figures.backend,
            fps=0.0 if stale else figures.fps,
            invoke_ms=Percentiles(p50=figures.invoke_ms.p50, p95=figures.invoke_ms.p95),
            drops=figures.drops,
            restarts=figures.restarts,
            outbox=OutboxFigures(unsent=stats.unsent, oldest_s=stats.oldest_s),
            soc_c=soc_celsius(),
            scene=figures.scene,
            time_quality=self._clock.time_quality(),
            paused=figures.paused,
            versions=figures.versions,
        )

    def _note(self, mid: int) -> None:
        self._flight[mid] = None

    # ---- in

    def receive(self, outbox: Outbox | None, session: Session) -> None:
        """Take in what `Session.step` gathered: acknowledgements, commands, our own status."""
        acks, session.acks[:] = list(session.acks), []
        sent: list[Key] = []
        for ack in acks:
            row = self._flight.pop(ack.mid, None)
            if ack.code < FAILURE and ack.code != NO_SUBSCRIBER:
                if row is not None:
                    sent.append(row.key)
            elif row is not None:
                self._not_taken(ack)
            elif ack.code != NO_SUBSCRIBER and ack.code not in self._denied:
                self._denied.add(ack.code)
                log.warning(event("publish-denied", code=f"0x{ack.code:02X}", why=REASONS.get(ack.code, "unknown")))
        if sent and outbox is not None:
            outbox.mark_sent(sent, self._clock.utcnow())
            self._probing = False
        incoming, session.incoming[:] = list(session.incoming), []
        for message in incoming:
            self._take(session, message)

    def _not_taken(self, ack: Ack) -> None:
        now = self._clock.monotonic()
        if self._probing and now < self._pause_until:
            return  # the rest of a batch that got the same answer
        self._pause_until, self._probing = now + RETRY_S, True
        topic = self._topics("counts")
        code = f"0x{ack.code:02X}"
        if ack.code == NO_SUBSCRIBER:
            log.warning(event("no-subscriber", code=code, topic=topic, next="rows are kept, retried each minute"))
        elif ack.code == NOT_AUTHORISED:
            log.error(
                event(
                    "alarm",
                    code=code,
                    topic=topic,
                    next="allow this device to write there in the broker's ACL",
                )
            )
        else:
            why = REASONS.get(ack.code, "unknown reason: see the broker's log")
            log.error(event("alarm", code=code, topic=topic, why=why, next="rows are kept, retried each minute"))

    def _take(self, session: Session, message: Incoming) -> None:
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
        elif leaf in {"cmd/pause", "cmd/resume", "cmd/identify"}:
            try:
                command = leaf.removeprefix("cmd/")
                written = write_command(self._runtime, command)  # type: ignore[arg-type] # one of the three
                log.info(event("command", command=command, number=written.number, paused=written.paused))
            except StorageError as error:
                log.error(event("command-lost", topic=message.topic, why=error))

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


def soc_celsius(path: Path = _THERMAL) -> float | None:
    """Temperature of the SoC in °C, None where the kernel shows no sensor."""
    try:
        return round(int(path.read_text(encoding="ascii")) / 1000, 1)
    except (OSError, ValueError):
        return None

"""From a broker into a landing log and a store; a message is acknowledged when both have it, and not before.

One thread: what came is gathered, landed as a segment, decoded, committed, acknowledged. Whatever fails is tried
again; what was not acknowledged the broker sends again, and the store knows a window that it has.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge.contract import ContractError
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError, SourceError, StorageError
from edge_aggregate.alarms import Teller
from edge_aggregate.connection import Connection
from edge_aggregate.ingest import ingest_files
from edge_aggregate.landing import Landing, Message
from edge_aggregate.metrics import Figures
from edge_aggregate.store.fleet import HealthRow, StatusRow, read_message, write_fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import paho.mqtt.client as mqtt

    from edge_aggregate.broker import Broker
    from edge_aggregate.landing import Segment
    from edge_aggregate.store import Merged, Store

log = logging.getLogger("edge.aggregate")

KEEP_S: Final = 7 * 86_400
"""How long the broker keeps the session of a subscriber that is away."""
BATCH_BYTES: Final = 16 << 20
"""Of payloads: what a segment has at most, and how much may lie here unlanded."""
BACKOFF_S: Final = 0.5, 30.0
"""First and longest wait before a broker, a store or a disk is tried again."""
HOLD_S: Final = 30.0
"""A store or a disk that takes nothing for so long: the connection is given up, and with it the claim to messages."""
FLEET_S: Final = 1.0
FLEET_ROWS: Final = 20_000
"""Of `status` and `health` each, between two writes: what is over is dropped, the next one says it again."""
QUIET_S: Final = 60.0
"""Nothing at all after subscribing: said once, since a broker's access list says nothing."""
GRANT_S: Final = 30.0
"""How long a broker that sends nothing else may take to answer a subscription."""
SHORT: Final = 3
"""Connections that ended soon after they were made, one after the other, until that is said to be odd."""
LEAVE_S: Final = 1.0
"""How long a group's broker may take to let one go."""
BUSY_S: Final = 2.0
"""How long a commit waits for another program's, so that an end comes within 5 s."""


class Options(NamedTuple):
    """What a command line says. `batch`: messages of a commit at most; `every`: seconds that one waits at most."""

    store: str
    landing: Path
    client_id: str
    root: str = "edge"
    share: str | None = None
    batch: int = 5000
    every: float = 0.2


class Task(Protocol):
    """What else is done over the connection, as asking for gaps is."""

    def topics(self) -> tuple[tuple[str, int], ...]:
        """What it listens to, with QoS."""

    def take(self, topic: str, payload: bytes, correlation: bytes | None) -> bool:
        """Whether a message was its own."""

    def tend(self, connection: Connection, store: Store) -> None:
        """Called often. Raises BrokerUnavailable and StorageError."""

    def lost(self) -> None:
        """The connection is gone."""


class _StoreStuck(Exception):
    """Nothing could be kept for `HOLD_S`."""


class Subscriber:
    """See the module. `run` returns when `stopping` says so; everything else is tried for ever.

    Args:
        broker: where messages come from.
        options: where they go to.
        open_store: opens the store; called again when a database had gone.
        stopping: asked often.
        task: what else is done over the connection.

    """

    def __init__(
        self,
        broker: Broker,
        options: Options,
        open_store: Callable[[], Store],
        stopping: Callable[[], bool],
        task: Task | None = None,
    ) -> None:
        self.figures = Figures()
        self._broker, self._options, self._open_store, self._stopping = broker, options, open_store, stopping
        self._task = task
        self._store: Store | None = None
        self._landing = Landing(options.landing, options.client_id)
        self._teller = Teller()
        self._buffer: list[Message] = []
        self._bytes = 0
        self._first = 0.0
        self._pending: list[Segment] = []
        self._retry_at = self._failing_since = 0.0
        self._wait = BACKOFF_S[0]
        self._short = 0
        self._statuses: list[StatusRow] = []
        self._healths: dict[str, HealthRow] = {}
        self._fleet_at = 0.0
        self._wanted: list[tuple[str, int]] = []
        self._spare: list[int] = []
        """Packets that may be acknowledged as they are."""

    def run(self) -> None:
        """Subscribe until stopped.

        Raises StorageError when the store or the log cannot be used at the start, BrokerRefused or ConfigError when the
        broker says no to the first connection. Later both are waited for.
        """
        self._store = self._open_store()
        self._recover(self._store)
        wait = BACKOFF_S[0]
        try:
            while not self._stopping():
                since, before = time.monotonic(), self.figures.connections
                try:
                    self._session()
                    if self._stopping():
                        break
                except (BrokerRefused, ConfigError) as error:  # a certificate that is just being renewed, say
                    if not self.figures.connections:
                        raise
                    log.error("%s", error)
                except BrokerUnavailable as error:
                    log.warning("%s: trying again", error)
                    self._cut_short(time.monotonic() - since, subscribed=self.figures.connections > before)
                except _StoreStuck:
                    self._mend()
                    continue
                wait = BACKOFF_S[0] if time.monotonic() - since > BACKOFF_S[1] else min(wait * 2, BACKOFF_S[1])
                self._sleep(wait)
        finally:
            self._close_store()

    def _cut_short(self, seconds: float, *, subscribed: bool) -> None:
        """Say what it may be when one connection after the other ends soon: many brokers hang up without a reason."""
        self._short = self._short + 1 if subscribed and seconds < BACKOFF_S[1] else 0
        if self._short >= SHORT:
            self._teller.say(
                "short",
                f"{self._broker.name} has hung up {self._short} times in a row: if another client is called "
                f"{self._options.client_id} too, each ends the other: give each its own --client-id",
            )

    def _recover(self, store: Store) -> None:
        """Segments that an end, a crash or a power cut left uncounted go first."""
        for path in self._landing.unsettled(store):
            try:
                done = ingest_files(store, [path])
            except SourceError as error:
                log.error("%s", error)
                continue
            self._count(done.merged)
            log.info("%s: %d lines were landed and not counted: done now", path.name, done.lines)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    # ---- one connection

    def _session(self) -> None:
        """From CONNECT to the end of it; raises what ended it."""
        options = self._options
        connection = Connection(
            self._broker,
            options.client_id,
            keep_s=0 if options.share else KEEP_S,
            receive=2 * options.batch,
            on_message=self._aside,
            on_counts=self._receive,
        )
        connection.open(self._stopping)
        if self._stopping():
            connection.close()
            return
        self.figures.connected = True
        try:
            self._subscribe(connection)
            self.figures.connections += 1
            session = "kept" if connection.resumed else "new"
            log.info("%s: subscribed as %s (session %s)", self._broker.name, options.client_id, session)
            self._listen(connection)
        except BaseException:
            connection.abandon()
            raise
        else:
            connection.close()
        finally:
            self.figures.connected = False
            self._let_go()
            if self._task is not None:
                self._task.lost()

    def _subscribe(self, connection: Connection) -> None:
        options = self._options
        every = f"{options.root}/v1/+/+"
        shared = f"$share/{options.share}/" if options.share else ""
        wanted = [(f"{shared}{every}/counts", 1), (f"{shared}{every}/health", 0), (f"{every}/status", 0)]
        self._wanted = wanted
        if self._task is not None:
            wanted += self._task.topics()
        number = connection.subscribe(*wanted)
        heard, before = time.monotonic(), self.figures.messages
        while number not in connection.granted:  # what waited in the session may come first, all of it
            connection.step(self._patience())
            self._tend(connection)
            if self._stopping():
                return
            if self.figures.messages > before:
                heard, before = time.monotonic(), self.figures.messages
            if time.monotonic() > heard + GRANT_S:
                msg = f"{self._broker.name} does not answer a subscription"
                raise BrokerUnavailable(msg)
        for (topic, qos), code in zip(wanted, connection.granted[number], strict=True):
            if code >= 0x80 and topic == wanted[0][0]:
                msg = (
                    f"{self._broker.name} refuses the subscription to {topic} (0x{code:02X}): let this client read "
                    f"{every}/#, in its access list"
                )
                raise BrokerRefused(msg)
            if code >= 0x80 or code < qos:
                self._teller.say(f"granted {topic}", f"{self._broker.name} does not grant {topic} (0x{code:02X})")

    def _listen(self, connection: Connection) -> None:
        options, task = self._options, self._task
        deaf_at = time.monotonic() + QUIET_S
        while not self._stopping():
            connection.step(self._patience())
            self._tend(connection)
            if task is not None and self._store is not None and not self._pending:
                try:
                    task.tend(connection, self._store)
                except StorageError as error:
                    self._store_failed(error)
            if deaf_at and time.monotonic() > deaf_at:
                deaf_at = 0.0
                if not self.figures.messages:
                    log.warning(
                        "nothing has come on %s/v1/… yet: no device is there, or the broker's access list does not let "
                        "%s read, which brokers do not say",
                        options.root,
                        options.client_id,
                    )
        if options.share:
            self._leave(connection)
        if self._buffer or self._pending:
            self._retry_at = 0.0
            self._flush(connection)
        if self._pending:
            log.warning("%d segments are landed and not counted: the next start counts them", len(self._pending))

    def _leave(self, connection: Connection) -> None:
        """Take what is under way and no more: a group's broker forgets what it had sent to one who leaves."""
        number = connection.unsubscribe(self._wanted[0][0])
        end = time.monotonic() + LEAVE_S
        while number not in connection.granted and time.monotonic() < end:
            connection.step(0.05)

    def _patience(self) -> float:
        """How long the socket may be waited for."""
        if not self._buffer or time.monotonic() < self._retry_at:
            return 0.1
        return min(0.1, max(0.0, self._first + self._options.every - time.monotonic()))

    def _receive(self, mid: int, topic: bytes, payload: bytes) -> None:
        """Counts; called from within `step` with each message."""
        now = time.time_ns() // 1_000_000
        figures = self.figures
        figures.messages += 1
        figures.unacknowledged += 1
        if not self._buffer:
            self._first = time.monotonic()
        if figures.oldest_ms is None:
            figures.oldest_ms = now
        self._buffer.append(Message(mid, topic.decode("utf-8", "backslashreplace"), payload, now))
        self._bytes += len(payload)

    def _aside(self, message: mqtt.MQTTMessage) -> None:
        """Status, health, answers: nothing that is counted."""
        now = time.time_ns() // 1_000_000
        self.figures.messages += 1
        if message.qos:  # a session may hold what nobody here asked for
            self._spare.append(message.mid)
        payload = bytes(message.payload)
        try:
            topic = message.topic
        except UnicodeDecodeError:  # nobody's
            return
        correlation = getattr(message.properties, "CorrelationData", None)
        if self._task is not None and self._task.take(topic, payload, correlation):
            return
        try:
            found = read_message(topic, payload, now)
        except ContractError as error:
            self.figures.dead["fleet"] += 1
            self._teller.say("fleet", f"refused on {topic[:200]!a}: {error}")
            return
        if isinstance(found, HealthRow):
            if len(self._healths) < FLEET_ROWS or found.device in self._healths:
                self._healths[found.device] = found
        elif found is not None and len(self._statuses) < FLEET_ROWS:
            self._statuses.append(found)

    def _let_go(self) -> None:
        """The connection is gone: its packets cannot be acknowledged, and what was not landed will come again."""
        self._buffer.clear()
        self._spare.clear()
        self._bytes = 0
        for segment in self._pending:
            segment.mids.clear()
        self.figures.unacknowledged = 0
        self.figures.oldest_ms = None

    # ---- keeping

    def _tend(self, connection: Connection) -> None:
        now = time.monotonic()
        if self._spare:
            spare, self._spare = self._spare, []
            connection.acknowledge(spare)
        if now < self._retry_at:
            self._overdue(now)
            return
        full = len(self._buffer) >= self._options.batch or self._bytes >= BATCH_BYTES
        if self._pending or full or (self._buffer and now - self._first >= self._options.every):
            self._flush(connection)
        if now >= self._fleet_at and (self._statuses or self._healths):
            self._fleet_at = now + FLEET_S
            self._write_fleet()

    def _overdue(self, now: float) -> None:
        """Give up the connection rather than hoard: others of the group, or we later, get what is not acknowledged."""
        if self._failing_since and (now - self._failing_since > HOLD_S or self._bytes > 2 * BATCH_BYTES):
            self._land()  # a group's broker forgets what it had sent to one who leaves
            log.error("nothing could be kept for %.0f s: hanging up until it can", now - self._failing_since)
            raise _StoreStuck

    def _flush(self, connection: Connection) -> None:
        """Land, commit, acknowledge; on failure say so and set when it is tried again."""
        self._land()
        if self._pending and self._commit():
            mids = [mid for segment in self._pending for mid in segment.mids]
            self._pending.clear()
            self.figures.unacknowledged -= len(mids)
            self.figures.oldest_ms = self._buffer[0].received_ms if self._buffer else None
            connection.acknowledge([mid for mid in mids if mid])

    def _land(self) -> None:
        batch = self._options.batch
        while self._buffer:
            try:
                segment = self._landing.write(self._buffer[:batch])
            except StorageError as error:
                self.figures.landing_errors += 1
                self._failed("landing", error)
                break
            self._pending.append(segment)
            taken, self._buffer = self._buffer[:batch], self._buffer[batch:]
            self._bytes -= sum(len(message.payload) for message in taken)
            self._first = time.monotonic()
            self.figures.segments += 1
            self._alarm(segment)

    def _commit(self) -> bool:
        """Whether all that is landed is in the store now."""
        try:
            if self._store is None:
                self._store = self._open_store()
            merged = self._store.merge([segment.batch for segment in self._pending])
        except StorageError as error:
            self._store_failed(error)
            return False
        now = time.time_ns() // 1_000_000
        self._count(merged, sum(len(segment.batch.dead) for segment in self._pending))
        self.figures.commits += 1
        if self.figures.oldest_ms is not None:
            self.figures.lag_ms = max(0, now - self.figures.oldest_ms)
        self.figures.committed_ms = now
        if self._failing_since:
            log.info("kept again: %d segments", len(self._pending))
        self._failing_since, self._wait = 0.0, BACKOFF_S[0]
        return True

    def _count(self, merged: Merged, told: int = 0) -> None:
        figures = self.figures
        figures.windows += merged.windows
        figures.duplicates += merged.duplicates
        figures.conflicts += merged.conflicts
        if (late := merged.dead - told) > 0:
            figures.dead["refused"] += late
            self._teller.say("refused", f"{late} windows refused: absurd gaps, or older than what is kept", more=late)
        if merged.conflicts:
            text = f"{merged.conflicts} conflicts: two payloads claim one window: `export --dead-letters` lists them"
            self._teller.say("conflict", text, level=logging.ERROR, more=merged.conflicts)

    def _alarm(self, segment: Segment) -> None:
        """Say what was refused; it is in the landing log and will be among the dead letters."""
        for _, dead in segment.batch.dead:
            self.figures.dead[dead.kind] += 1
            self._teller.say(f"dead {dead.kind}", f"refused on {(dead.topic or '')!a}: {dead.reason}")

    def _write_fleet(self) -> None:
        try:
            if self._store is None:
                self._store = self._open_store()
            write_fleet(self._store.engine, self._statuses, self._healths.values())
        except StorageError as error:
            self._store_failed(error)
            return
        self.figures.fleet += len(self._statuses) + len(self._healths)
        self._statuses.clear()
        self._healths.clear()

    def _store_failed(self, error: StorageError) -> None:
        self.figures.store_errors += 1
        self._close_store()  # a database that was gone is opened anew
        self._failed("store", error)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _failed(self, what: str, error: StorageError) -> None:
        now = time.monotonic()
        self._teller.say(what, f"{error}: not acknowledged, tried again", level=logging.ERROR)
        self._failing_since = self._failing_since or now
        self._retry_at = now + self._wait
        self._wait = min(self._wait * 2, BACKOFF_S[1])

    def _mend(self) -> None:
        """Without a connection, until the disk and the store take what they are given."""
        while not self._stopping():
            try:
                self._landing.probe()
            except StorageError as error:
                self.figures.landing_errors += 1
                self._failed("landing", error)
            else:
                if self._commit():
                    self._pending.clear()
                    return
            self._sleep(self._retry_at - time.monotonic())

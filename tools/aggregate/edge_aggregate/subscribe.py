"""A subscriber's session with its broker, until it is told to end: what comes goes to `batches.py`, which keeps it.

One thread. A message is acknowledged when the landing log and the store both have it, and not before; what was not
acknowledged the broker sends again, and the store knows a window that it has.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge.contract import ContractError
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError, StorageError
from edge_aggregate.alarms import Teller
from edge_aggregate.batches import BACKOFF_S, Batches, StoreStuck, sleep
from edge_aggregate.connection import Connection
from edge_aggregate.landing import Landing
from edge_aggregate.metrics import Figures
from edge_aggregate.store.fleet import HealthRow, StatusRow, read_fleet, read_message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import paho.mqtt.client as mqtt

    from edge_aggregate.broker import Broker
    from edge_aggregate.store import Store

log = logging.getLogger("edge.aggregate")

KEEP_S: Final = 7 * 86_400
"""How long the broker keeps the session of a subscriber that is away."""
QUIET_S: Final = 60.0
"""Nothing at all after subscribing: said once, since a broker's access list says nothing."""
GRANT_S: Final = 30.0
"""How long a broker that sends nothing else may take to answer a subscription."""
SHORT: Final = 3
"""Connections that ended soon after they were made, one after the other, until that is said to be odd."""
LEAVE_S: Final = 1.0
"""How long a group's broker may take to let one go."""


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
        self.batches = Batches(
            Landing(options.landing, options.client_id),
            open_store,
            self.figures,
            batch=options.batch,
            every=options.every,
        )
        self._broker, self._options, self._stopping, self._task = broker, options, stopping, task
        self._teller = Teller()
        self._short = 0
        self._wanted: list[tuple[str, int]] = []
        self._heard: dict[tuple[type, str], int] = {}
        """When a device last said a status or a health: what is retained says it again, and not when."""
        self._spare: list[int] = []
        """Packets that may be acknowledged as they are."""

    def run(self) -> None:
        """Subscribe until stopped.

        Raises StorageError when the store or the log cannot be used at the start, BrokerRefused or ConfigError when the
        broker says no to the first connection. Later both are waited for.
        """
        self.batches.recover()
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
                except StoreStuck:
                    self.batches.mend(self._stopping)
                    continue
                wait = BACKOFF_S[0] if time.monotonic() - since > BACKOFF_S[1] else min(wait * 2, BACKOFF_S[1])
                sleep(wait, self._stopping)
        finally:
            self.batches.close()

    def _cut_short(self, seconds: float, *, subscribed: bool) -> None:
        """Say what it may be when one connection after the other ends soon: many brokers hang up without a reason."""
        self._short = self._short + 1 if subscribed and seconds < BACKOFF_S[1] else 0
        if self._short >= SHORT:
            self._teller.say(
                "short",
                f"{self._broker.name} has hung up {self._short} times in a row: if another client is called "
                f"{self._options.client_id} too, each ends the other: give each its own --client-id",
            )

    def _session(self) -> None:
        """From CONNECT to the end of it; raises what ended it."""
        options = self._options
        connection = Connection(
            self._broker,
            options.client_id,
            keep_s=0 if options.share else KEEP_S,
            receive=2 * options.batch,
            on_message=self._aside,
            on_counts=self.batches.add,
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
            self._spare.clear()
            self.batches.let_go()
            if self._task is not None:
                self._task.lost()

    def _subscribe(self, connection: Connection) -> None:
        options = self._options
        every = f"{options.root}/v1/+/+"
        shared = f"$share/{options.share}/" if options.share else ""
        # Of what is retained, statuses first: they say at which site a device is now.
        wanted = [(f"{shared}{every}/counts", 1), (f"{every}/status", 0), (f"{shared}{every}/health", 0)]
        self._wanted = wanted
        if self._task is not None:
            wanted += self._task.topics()
        self._recall()
        number = connection.subscribe(*wanted)
        heard, before = time.monotonic(), self.figures.messages
        while number not in connection.granted:  # what waited in the session may come first, all of it
            connection.step(self.batches.patience())
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

    def _recall(self) -> None:
        """Learn from the store when devices were heard of, by whoever listened."""
        if (store := self.batches.settled) is None:
            return
        try:
            members = read_fleet(store.engine)
        except StorageError as error:
            self.batches.store_failed(error)
            return
        for member in members:
            for kind, at in ((StatusRow, member.status_ms), (HealthRow, member.health_ms)):
                if at is not None:
                    self._heard[kind, member.device] = max(at, self._heard.get((kind, member.device), 0))

    def _listen(self, connection: Connection) -> None:
        options, task = self._options, self._task
        deaf_at = time.monotonic() + QUIET_S
        while not self._stopping():
            connection.step(self.batches.patience())
            self._tend(connection)
            if task is not None and (store := self.batches.settled) is not None:
                try:
                    task.tend(connection, store)
                except StorageError as error:
                    self.batches.store_failed(error)
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
        self.batches.finish(connection.acknowledge)

    def _leave(self, connection: Connection) -> None:
        """Take what is under way and no more: a group's broker forgets what it had sent to one who leaves."""
        number = connection.unsubscribe(self._wanted[0][0])
        end = time.monotonic() + LEAVE_S
        while number not in connection.granted and time.monotonic() < end:
            connection.step(0.05)

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
        if found is None:
            return
        key = type(found), found.device
        if not message.retain:
            self._heard[key] = now
        elif isinstance(found, StatusRow):  # of one never heard of nothing else is known than when it began
            found = found._replace(status_ms=self._heard.get(key, min(found.since_ms, now)), retained=True)
        else:
            found = found._replace(health_ms=self._heard.get(key, 0), retained=True)
        self.batches.add_fleet(found)

    def _tend(self, connection: Connection) -> None:
        if self._spare:
            spare, self._spare = self._spare, []
            connection.acknowledge(spare)
        self.batches.tend(connection.acknowledge)

"""Asking devices for what never came: `cmd/replay`, one asker at a time, slowly; what is gone is noted as lost.

The rows themselves come on `counts`, to whoever subscribes; here only the answers are waited for.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.contract import ContractError, ReplayAnswer, ReplayCommand, Topics, decode, encode, parse_topic
from edge_aggregate.connection import NOT_AUTHORISED
from edge_aggregate.store.replays import (
    Gap,
    drop_lease,
    forget_closed,
    note_asked,
    note_gone,
    read_gaps,
    take_lease,
)

if TYPE_CHECKING:
    from edge_aggregate.connection import Connection
    from edge_aggregate.store import Store

log = logging.getLogger("edge.aggregate")

PER_SECOND: Final = 5.0
"""Commands a second to the whole fleet. A device takes one a second, and one at a time is asked of it here."""
WAITING: Final = 50
"""Devices that may be at it at once: their rows come in one stream with everybody's."""
ANSWER_S: Final = 300.0
"""How long an answer is waited for; a device sends its rows before it answers."""
LEASE: Final = "replay"
LEASE_MS: Final = 600_000
ROUND: Final = 2_000
"""Gaps of a round, at most."""
DENIED_S: Final = 3600.0
"""After the broker let nobody ask."""


class Asked(NamedTuple):
    """A command under way."""

    gap: Gap
    correlation: bytes
    until: float
    mid: int


class Answers:
    """What came of it: gaps asked for, rows that devices said they sent, rows that are gone, and no answers."""

    def __init__(self) -> None:
        self.asked = self.sent = self.gone = self.silent = 0


class Asker:
    """Asks over a connection that somebody else drives; see `edge_aggregate.subscribe.Task`.

    Args:
        root: of the topics.
        every: seconds between two rounds; None: one round, at once.

    """

    def __init__(self, root: str, every: float | None) -> None:
        self._root, self._every = root, every
        self._holder = secrets.token_hex(8)
        self._queue: deque[Gap] = deque()
        self._waiting: dict[str, Asked] = {}
        self._answered: list[tuple[Asked, ReplayAnswer]] = []
        self._round_at = time.monotonic() + (every or 0.0)
        self._next_at = self._lease_at = 0.0
        self._started = False
        self.answers = Answers()
        self.denied = False
        self.held_by_another = False

    @property
    def done(self) -> bool:
        """Whether the one round is over."""
        return self._started and not (self._queue or self._waiting or self._answered)

    def topics(self) -> tuple[tuple[str, int], ...]:
        """Where answers come: brokers let a device write below its own topics only."""
        return ((f"{self._root}/v1/+/+/reply/+", 0),)

    def take(self, topic: str, payload: bytes, correlation: bytes | None) -> bool:
        """Whether it was an answer; those to others are left alone."""
        try:
            topics, leaf = parse_topic(topic)
            kind, _, name = leaf.partition("/")
            if kind != "reply":
                return False
            asked = self._waiting.get(name)
            if asked is None or (topics.site, topics.device) != (asked.gap.site, asked.gap.device):
                return True
            answer = decode(ReplayAnswer, payload)
        except ContractError:
            return "/reply/" in topic
        if answer.id == name and correlation in (asked.correlation, None):  # None: the device speaks MQTT 3.1.1
            del self._waiting[name]
            self._answered.append((asked, answer))
        return True

    def lost(self) -> None:
        """The connection is gone, and answers with it: what has been sent comes all the same."""
        self._waiting.clear()

    def tend(self, connection: Connection, store: Store) -> None:
        """Begin a round when it is due, go on with the one there is. Raises BrokerUnavailable and StorageError."""
        now = time.monotonic()
        self._note(store)
        self._look(connection, now)
        if now >= self._round_at and not self._queue:
            self._begin(store, now)
        if self._queue and now >= self._lease_at and not self._lease(store, now):
            self._queue.clear()
        while self._queue and len(self._waiting) < WAITING and now >= self._next_at and not self.denied:
            busy = {asked.gap.device for asked in self._waiting.values()}
            gap = next((gap for gap in self._queue if gap.device not in busy), None)
            if gap is None:
                break
            self._queue.remove(gap)
            self._ask(connection, store, gap, now)
        if self.done and self._every:
            self._end(store)

    def leave(self, store: Store) -> None:
        """Wait no longer: whoever has not answered did not, and the next one may ask. Raises StorageError."""
        self._note(store)
        self.answers.silent += len(self._waiting)
        self._waiting.clear()
        self._queue.clear()
        drop_lease(store.engine, LEASE, self._holder)

    def _begin(self, store: Store, now: float) -> None:
        self._round_at = now + self._every if self._every else float("inf")
        self._started, self.denied, self.answers = True, False, Answers()
        self.held_by_another = not self._lease(store, now)
        if self.held_by_another:
            return
        forget_closed(store.engine)
        now_ms = time.time_ns() // 1_000_000
        self._queue.extend([gap for gap in read_gaps(store.engine) if gap.due(now_ms)][:ROUND])

    def _lease(self, store: Store, now: float) -> bool:
        self._lease_at = now + LEASE_MS / 3000
        return take_lease(store.engine, LEASE, self._holder, time.time_ns() // 1_000_000, LEASE_MS)

    def _end(self, store: Store) -> None:
        answers, self._started = self.answers, False
        drop_lease(store.engine, LEASE, self._holder)
        if answers.asked:
            log.info("%s", summary(answers))

    def _ask(self, connection: Connection, store: Store, gap: Gap, now: float) -> None:
        name, correlation = f"r-{secrets.token_hex(8)}", secrets.token_bytes(8)
        topics = Topics(self._root, gap.site, gap.device)
        command = ReplayCommand(id=name, boot_id=gap.boot_id, from_=gap.first_seq, to=gap.last_seq)
        note_asked(store.engine, gap, time.time_ns() // 1_000_000)
        mid = connection.publish(
            topics("cmd/replay"),
            encode(command),
            answer_to=topics(f"reply/{name}"),
            correlation=correlation,
            expiry=int(ANSWER_S),
        )
        self._waiting[name] = Asked(gap, correlation, now + ANSWER_S, mid)
        self._next_at = max(self._next_at, now - 1) + 1 / PER_SECOND
        self.answers.asked += 1

    def _look(self, connection: Connection, now: float) -> None:
        """What the broker answered, and who has not."""
        for name, asked in list(self._waiting.items()):
            code = connection.published.pop(asked.mid, 0)
            if code == NOT_AUTHORISED and not self.denied:
                self.denied = True
                self._round_at = max(self._round_at, now + DENIED_S)
                self._queue.clear()
                log.error("the broker lets nobody ask: let this client write %s/v1/+/+/cmd/replay there", self._root)
            if code or now > asked.until:  # 0x10: it is not connected
                del self._waiting[name]
                self.answers.silent += 1

    def _note(self, store: Store) -> None:
        while self._answered:
            asked, answer = self._answered[-1]
            if answer.sent == 0 and answer.gone >= asked.gap.missing:
                note_gone(store.engine, asked.gap, time.time_ns() // 1_000_000)
            self.answers.sent += answer.sent
            self.answers.gone += answer.gone
            self._answered.pop()


def summary(answers: Answers) -> str:
    """In a line."""
    return (
        f"{answers.asked} gaps asked for: {answers.sent} windows are sent again, {answers.gone} are gone, "
        f"{answers.silent} devices did not answer"
    )

"""What strangers ask of this device: pause, resume, identify, replay. Each is bounded, and none can end the service."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from edge.contract import ContractError, ReplayCommand, decode, parse_topic
from edge.errors import StorageError
from edge.outbox.runtime_files import write_command
from edge.process.logs import event

if TYPE_CHECKING:
    from pathlib import Path

    from edge.contract import Topics
    from edge.outbox.outbox import Outbox
    from edge.process.clock import Clock
    from edge.publisher.session import Incoming

log = logging.getLogger("edge.publisher")

REPLAYS: Final = 16
"""Replays waiting at once, at most."""
SWITCHES: Final = 5, 10.0
"""So many pauses, resumes and identifies at once, then one in so many seconds: each pause is written to the card."""
ASKS: Final = 16, 1.0
"""The same of replays."""
SEQ_MOST: Final = 2**63 - 1
"""What SQLite holds; no row has a larger seq."""

UNREADABLE: Final = (ContractError, ArithmeticError, ValueError, LookupError, TypeError, RecursionError)
"""What a decoder can raise on a hostile message; OverflowError and UnicodeError are among them."""

_Switch = Literal["pause", "resume", "identify"]


@dataclass(slots=True)
class Replay:
    """One under way: `next_seq` is the next row to look for, `sent` how many went out."""

    command: ReplayCommand
    answer_to: str
    correlation: bytes | None
    next_seq: int
    sent: int = 0


class Allowance:
    """So many at once, then one more every `seconds`."""

    def __init__(self, clock: Clock, most: int, seconds: float) -> None:
        self._clock, self._most, self._seconds = clock, most, seconds
        self._left, self._at = float(most), clock.monotonic()

    def take(self) -> bool:
        """Use one up, if there is one."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + max(0.0, now - self._at) / self._seconds)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Commands:
    """Takes commands in; `replays` is for whoever sends rows to work off.

    `taboo` are topics, and all below them, that no answer goes to though the device may write there.
    """

    def __init__(self, topics: Topics, clock: Clock, runtime: Path, *taboo: str | None) -> None:
        self._topics, self._clock, self._runtime = topics, clock, runtime
        self._taboo = tuple(topic for topic in (topics.root, *taboo) if topic)
        self._switches, self._asks = Allowance(clock, *SWITCHES), Allowance(clock, *ASKS)
        self._wanted: list[_Switch] = []
        self.replays: deque[Replay] = deque()

    def take(self, message: Incoming, leaf: str) -> None:
        """Take in one that arrived on `cmd/…`; acted on by the next `tend`."""
        if message.retained:
            log.warning(event("command-ignored", topic=message.topic, why="it is retained", next="clear it"))
        elif leaf == "cmd/replay":
            self._take_replay(message)
        elif leaf == "cmd/paused":
            switch: dict[bytes, _Switch] = {b"true": "pause", b"false": "resume"}
            if message.payload in switch:
                self._want(switch[message.payload])
            else:
                log.warning(event("command-ignored", topic=message.topic, next="send true or false"))
        elif leaf in {"cmd/pause", "cmd/resume", "cmd/identify"}:
            self._want(leaf.removeprefix("cmd/"))  # type: ignore[arg-type] # one of the three

    def refuse(self, message: Incoming, error: BaseException) -> None:
        """Say that a message could not be made sense of."""
        log.warning(event("message-refused", topic=message.topic, why=f"{type(error).__name__}: {error}"[:200]))

    def _want(self, command: _Switch) -> None:
        """Of those that wait, the last pause or resume counts, and one identify."""
        same = {"identify"} if command == "identify" else {"pause", "resume"}
        self._wanted = [*(other for other in self._wanted if other not in same), command]

    def tend(self, outbox: Outbox | None) -> None:
        """Act on what was asked for, no faster than the allowance; the rest waits for its turn.

        Raises StorageError where the outbox does not take a pause: obeyed it is, and noted when it is opened again.
        """
        while self._wanted and self._switches.take():
            command = self._wanted.pop(0)
            before = command == "identify" and outbox is not None and outbox.paused
            try:
                written = write_command(self._runtime, command, before=before)
            except StorageError as error:
                log.error(event("command-lost", command=command, why=error))
                continue
            log.info(event("command", command=command, number=written.number, paused=written.paused))
            if outbox is not None and outbox.paused != written.paused:
                outbox.paused = written.paused

    def _take_replay(self, message: Incoming) -> None:
        if not self._asks.take():
            log.warning(event("replay-refused", why="too many in a short time", next="ask again later"))
            return
        try:
            command = decode(ReplayCommand, message.payload)
        except UNREADABLE as error:
            log.warning(event("replay-refused", why=error))
            return
        if command.to > SEQ_MOST:
            log.warning(event("replay-refused", id=command.id, why=f"to is over {SEQ_MOST}, the largest seq there is"))
            return
        if len(self.replays) >= REPLAYS:
            log.warning(event("replay-refused", id=command.id, why="too many at once", next="ask again later"))
            return
        to = self._answer_to(message, command)
        self.replays.append(Replay(command, to, message.correlation, command.from_))

    def _answer_to(self, message: Incoming, command: ReplayCommand) -> str:
        """The response topic asked for, where this device may be made to write; else `reply/<id>`.

        Under the root only its own `reply/…`: an answer on `counts` or `status` would pose as the device's word.
        """
        own = self._topics(f"reply/{command.id}")
        asked = message.response_topic
        if not asked:
            return own
        if any(character in asked for character in "+#\0") or asked.startswith("$"):
            return own
        if any(f"{asked}/".startswith(f"{taboo}/") for taboo in self._taboo):
            try:
                topics, leaf = parse_topic(asked)
            except ContractError:
                topics, leaf = None, ""
            if topics != self._topics or not leaf.startswith("reply/"):
                log.warning(event("response-topic-refused", topic=asked, next=f"answered on {own}"))
                return own
        return asked

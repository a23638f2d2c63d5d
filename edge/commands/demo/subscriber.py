"""A subscriber for the demo and the tests: connect, yield what arrives. MQTT 5, or 3.1.1 where need be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a field's type
from typing import TYPE_CHECKING
from uuid import uuid4

from edge.contract import Counts, decode_counts
from edge.errors import BrokerUnavailable
from edge.publisher.session import Incoming, open_session
from edge.publisher.tls import TlsFiles  # noqa: TC001 - a field's type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to connect; fields as in the configuration's `mqtt` section."""

    host: str
    port: int
    tls: TlsFiles | None = None
    username: str | None = None
    password_file: Path | None = None
    insecure: bool = False


def _nothing() -> None:
    pass


def messages(
    broker: Broker,
    *topics: str,
    stopping: Callable[[], bool] = lambda: False,
    subscribed: Callable[[], object] = _nothing,
) -> Iterator[Incoming]:
    """Yield messages on these topics until `stopping`; calls `subscribed` once the broker has agreed.

    Reconnects after a loss, once a second. Raises BrokerRefused when the broker says no, BrokerUnavailable
    when it is not there at the start.
    """
    once = subscribed
    first = True
    while not stopping():
        try:
            session = open_session(broker, f"subscriber-{uuid4().hex[:12]}", stopping=stopping)
            first = False
            session.subscribe(*topics)
            while not stopping():
                session.step(0.1)
                if session.subscribed:
                    once()
                    once = _nothing
                arrived, session.incoming[:] = list(session.incoming), []
                yield from arrived
            session.close()
        except BrokerUnavailable:
            if first:
                raise
            time.sleep(1)


def counts(
    broker: Broker,
    root: str = "edge",
    *,
    stopping: Callable[[], bool] = lambda: False,
    subscribed: Callable[[], object] = _nothing,
) -> Iterator[Counts]:
    """Yield every `counts` message under `root` as it arrives. Raises as `messages`, and ContractError."""
    for message in messages(broker, f"{root}/v1/+/+/counts", stopping=stopping, subscribed=subscribed):
        yield decode_counts(message.payload)

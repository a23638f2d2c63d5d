"""paho's client with what it lacks: a bound on what it reads, the size of what it sends.

The bound matters under MQTT 3.1.1, where a client cannot tell its broker what it takes: paho would ask the kernel for
as many bytes as a packet's header promises, up to 256 MB at once. The method overridden is paho's own, by a leading
underscore not public; the tests notice when a release has it no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import paho.mqtt.client as mqtt

from edge.errors import BrokerUnavailable, EdgeError

if TYPE_CHECKING:
    from paho.mqtt.properties import Properties

LARGEST_RECEIVED: Final = 64 * 1024
"""Bytes of the largest packet read. A command has some hundred; the broker is told so in CONNECT."""


class TooLarge(EdgeError):
    """A message is over the broker's packet size and was not sent; the connection goes on."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"{topic}: {size} bytes, and the broker takes packets up to {limit}: raise its packet size limit"
        )
        self.size, self.limit = size, limit


class Flooded(BrokerUnavailable):
    """The broker sent a packet over `LARGEST_RECEIVED`, a retained one most likely, that would come again each time."""


class Client(mqtt.Client):
    """One connection's client."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > LARGEST_RECEIVED:
            msg = f"the broker sent a packet of {bufsize} bytes, {LARGEST_RECEIVED} is the most that is read"
            raise Flooded(msg)
        return super()._sock_recv(bufsize)


def publish_size(topic: str, payload: bytes, properties: Properties | None) -> int:
    """Bytes of a PUBLISH packet at QoS 1; `properties` are MQTT 5's, None under 3.1.1."""
    more = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
    remaining = 2 + len(topic.encode()) + 2 + more + len(payload)
    length = 1 if remaining < 1 << 7 else 2 if remaining < 1 << 14 else 3 if remaining < 1 << 21 else 4
    return 1 + length + remaining

"""The connection of a simulated fleet: messages of devices out, within what the broker takes at once; commands in."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import BrokerUnavailable
from edge_aggregate.connection import Connection

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_aggregate.broker import Broker

IN_FLIGHT: Final = 100
"""Messages sent and not yet acknowledged, at most; less where the broker says so."""
PATIENCE_S: Final = 60.0
"""A broker that acknowledges nothing for so long is given up."""
NO_SUBSCRIBER: Final = 0x10
_FAILURE: Final = 0x80
JSON: Final = "application/json"


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


_TYPE: Final = b"\x03" + _text(JSON)


class Packed(Properties):
    """paho's PUBLISH properties with a content type and user properties, packed here: paho takes fifteen times as long.

    Nothing else of it works, its tables are not made. A test holds the bytes to paho's.
    """

    def __init__(self, user: list[tuple[str, str]]) -> None:
        self.__dict__["user"] = user

    def pack(self) -> bytes:
        """Their length, and they."""
        body = _TYPE + b"".join(b"\x26" + _text(name) + _text(value) for name, value in self.__dict__["user"])
        size = len(body)
        return bytes((size,) if size < 128 else (size % 128 | 128, size // 128)) + body


class Sender(Connection):
    """Publishes for all devices. Raises BrokerUnavailable and BrokerRefused."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        super().__init__(broker, client_id, keep_s=0, receive=IN_FLIGHT, on_message=self._take)
        self._window = IN_FLIGHT
        self.incoming: deque[mqtt.MQTTMessage] = deque()
        self._counts: dict[int, str] = {}
        self.unheard: str | None = None
        """A topic of counts that nobody is subscribed to, or may write to: what went there came to nobody."""
        self._flying = 0

    def _take(self, message: mqtt.MQTTMessage) -> None:
        self.incoming.append(message)

    def _on_connect(
        self, _c: object, _u: object, flags: mqtt.ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        super()._on_connect(_c, _u, flags, reason, properties)
        self._window = max(1, min(IN_FLIGHT, int(getattr(properties, "ReceiveMaximum", IN_FLIGHT))))

    def _on_publish(self, _c: object, _u: object, mid: int, reason: ReasonCode, _p: object) -> None:
        self._flying -= 1
        topic = self._counts.pop(mid, None)
        if topic is not None and (int(reason.value) == NO_SUBSCRIBER or int(reason.value) >= _FAILURE):
            self.unheard = topic

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        user: list[tuple[str, str]] | None = None,
        expiry: int | None = None,
        correlation: bytes | None = None,
        must_be_heard: bool = False,
    ) -> None:
        """Publish at QoS 1, once there is room. `must_be_heard`: `unheard` says so if nobody listens.

        With `user` properties there is neither expiry nor correlation data.
        """
        self.settle(self._window - 1)
        properties = Properties(PacketTypes.PUBLISH) if user is None else Packed(user)  # type: ignore[no-untyped-call]
        if user is None:
            properties.ContentType = JSON
        if expiry is not None:
            properties.MessageExpiryInterval = expiry
        if correlation is not None:
            properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self._check(info.rc)
        self._flying += 1
        if must_be_heard:
            self._counts[info.mid] = topic

    def _together(self) -> None:
        """Write what waits, as one: a packet each would wake the broker for every message."""
        sock = self._client.socket()
        if not isinstance(sock, socket.socket) or not self._client.want_write():
            return
        cork = getattr(socket, "TCP_CORK", None)  # Linux has it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if cork is not None:
            sock.setsockopt(socket.IPPROTO_TCP, cork, 1)
        self.step(0)
        if cork is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.IPPROTO_TCP, cork, 0)

    def settle(self, most: int = 0) -> None:
        """Wait until at most so many messages are unacknowledged."""
        patience = PATIENCE_S
        while self._flying > most:
            before = self._flying
            self._together()
            self.step(0.1)
            patience = PATIENCE_S if self._flying < before else patience - 0.1
            if patience <= 0:
                msg = f"{self._broker.name} acknowledges nothing: look at its log"
                raise BrokerUnavailable(msg)

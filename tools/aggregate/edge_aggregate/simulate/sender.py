"""The connection of a simulated fleet: messages of devices out, within what the broker takes at once; commands in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import BrokerUnavailable
from edge_aggregate.broker import Broker, Connection

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt
    from paho.mqtt.reasoncodes import ReasonCode

IN_FLIGHT: Final = 100
"""Messages sent and not yet acknowledged, at most; less where the broker says so."""
PATIENCE_S: Final = 60.0
"""A broker that acknowledges nothing for so long is given up."""
NO_SUBSCRIBER: Final = 0x10
_FAILURE: Final = 0x80


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
        self, _c: object, _u: object, flags: mqtt.ConnectFlags, reason: ReasonCode, properties: object
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
        """Publish at QoS 1, once there is room. `must_be_heard`: `unheard` says so if nobody listens."""
        self.settle(self._window - 1)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/json"
        if user is not None:
            properties.UserProperty = user
        if expiry is not None:
            properties.MessageExpiryInterval = expiry
        if correlation is not None:
            properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self._check(info.rc)
        self._flying += 1
        if must_be_heard:
            self._counts[info.mid] = topic

    def settle(self, most: int = 0) -> None:
        """Wait until at most so many messages are unacknowledged."""
        patience = PATIENCE_S
        while self._flying > most:
            before = self._flying
            self.step(0.1)
            patience = PATIENCE_S if self._flying < before else patience - 0.1
            if patience <= 0:
                msg = f"{self._broker.name} acknowledges nothing: look at its log"
                raise BrokerUnavailable(msg)

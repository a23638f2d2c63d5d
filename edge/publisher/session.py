"""One MQTT connection, driven from a single thread: what was said, what was acknowledged, what came in.

A `Session` is used for one connection and thrown away, since paho-mqtt's own queue and reconnection would
send again what the outbox has to decide about. Acknowledgements carry their reason code: paho calls a
publish that the broker's ACL swallowed published, and so must not be believed.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.config.hosts import is_loopback
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError
from edge.publisher.broker import alert, no_connection, password
from edge.publisher.mqtt_client import LARGEST_RECEIVED, Client, Flooded, TooLarge, publish_size
from edge.publisher.reason_codes import FAILURE, TAKEN_OVER, UNSUPPORTED_VERSION, refusal
from edge.publisher.tls import certificate_end, refused_by_broker, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from edge.errors import EdgeError
    from edge.publisher.broker import BrokerSettings

IN_FLIGHT: Final = 50
"""Messages sent and not yet acknowledged, at most; less where the broker says so."""
_SPARE: Final = 4
"""Of the broker's receive maximum, kept for status, health, live and an answer."""
KEEPALIVE_S: Final = 30
CONNECT_S: Final = 3.0
"""Longest wait for TCP, and for the TLS handshake."""
CONNACK_S: Final = 5.0
HELD_S: Final = 60.0
"""A connection that lasted so long, and took something, was a good one."""

V5: Final = MQTTProtocolVersion.MQTTv5
V311: Final = MQTTProtocolVersion.MQTTv311
_MALFORMED: Final = (OSError, ValueError, LookupError, AssertionError, struct.error, MQTTException)
"""What paho raises on a socket's end and on packets that are none."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The broker's answer to one publish; `code` ≥ 0x80 is a refusal, 0x10 says that nobody subscribed."""

    mid: int
    code: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message received; `response_topic` and `correlation` are MQTT 5's, None under 3.1.1."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None


class UnansweredVersion(BrokerUnavailable):
    """MQTT 5 was hung up on, or met with silence: amqtt does so, which speaks 3.1.1, and any broker that is slow."""


class RefusedVersion(UnansweredVersion):
    """The broker said that it does not speak MQTT 5."""


class Session:
    """One connection to a broker, from CONNECT to its end.

    `window` is how many messages may wait for an acknowledgement, `limit` the largest packet that the broker takes
    (None: it does not say), `subscribed` whether it has answered a subscription. Nothing happens outside `open`,
    `step` and `close`; `acks`, `incoming` and `denied` (topics not subscribed to, and the reason code) fill up during
    `step` and are the caller's to empty.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        version: int = V5,
    ) -> None:
        self.version = version
        self.guessed = False
        """3.1.1 is spoken only because MQTT 5 got no answer."""
        self.window = IN_FLIGHT
        self.limit: int | None = None
        self.subscribed = False
        self._taken = False
        self._since = time.monotonic()
        self.acks: list[Ack] = []
        self.incoming: list[Incoming] = []
        self.denied: list[tuple[str, int]] = []
        self._asked: dict[int | None, tuple[str, ...]] = {}
        self._broker = broker
        self._connack: ReasonCode | None = None
        self._goodbye: ReasonCode | None = None
        self._retain = True
        self._qos1 = True
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if version == V5 else True,
            protocol=MQTTProtocolVersion(version),
            reconnect_on_failure=False,  # or paho would go down to MQTT 3.1 behind our back
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(0)  # no queue of paho's own: the caller keeps to `window`
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        if broker.tls is not None:
            client.tls_set_context(tls_context(broker.tls))
        elif not (broker.insecure or is_loopback(broker.host)):
            msg = f"mqtt: plain MQTT to {broker.host} is refused: give mqtt.tls, or say mqtt.insecure = true"
            raise ConfigError(msg)
        if broker.username is not None:
            client.username_pw_set(broker.username, password(broker.password_file))
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        self._client = client

    @property
    def v5(self) -> bool:
        """Whether this session speaks MQTT 5."""
        return self.version == V5

    @property
    def held(self) -> bool:
        """Whether the connection has lasted for `HELD_S`."""
        return time.monotonic() - self._since >= HELD_S

    @property
    def proven(self) -> bool:
        """Whether the broker took something and held the connection; a CONNACK alone proves nothing."""
        return self._taken and self.held

    def open(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Connect and wait for the broker's answer, or return unconnected when `stopping` says so.

        Raises BrokerUnavailable, BrokerRefused, or UnansweredVersion (try the other version).
        """
        where = f"{self._broker.host}:{self._broker.port}"
        self._connect()
        deadline = time.monotonic() + CONNACK_S
        while self._connack is None and not stopping():
            if time.monotonic() > deadline:
                self.abandon()
                msg = f"broker {where} accepts connections and does not answer: retrying, the rows are kept"
                raise (UnansweredVersion if self.v5 else BrokerUnavailable)(msg)
            try:
                rc = self._client.loop(0.1)
            except Flooded:
                self.abandon()
                raise
            except _MALFORMED as error:
                self.abandon()
                msg = f"broker {where} answered something that is not MQTT ({type(error).__name__})"
                raise BrokerUnavailable(msg) from error
            if rc == mqtt.MQTT_ERR_PROTOCOL and self._connack is None and not self.v5:
                # paho keeps the one 3.1.1 refusal to itself after which it would try MQTT 3.1.
                self.abandon()
                raise refusal(UNSUPPORTED_VERSION, self._broker.host, self._broker.port)
            if rc and self._connack is None:
                raise self._hung_up(where)
        if self._connack is None:
            self.abandon()
            return
        self._judge(where)

    def _connect(self) -> None:
        """TCP, TLS and the CONNECT packet."""
        asked = None
        if self.v5:
            asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            asked.MaximumPacketSize = LARGEST_RECEIVED
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=KEEPALIVE_S, properties=asked)
        except (OSError, UnicodeError) as error:
            raise no_connection(error, self._broker) from error

    def _hung_up(self, where: str) -> EdgeError:
        """The error for a connection that ended before its CONNACK; brokers rarely say why."""
        end = certificate_end(self._broker.tls)
        if end is not None and end < datetime.now(UTC):
            ended = f"this device's certificate ended on {end.date()}: renew mqtt.tls.cert"
            return BrokerRefused(f"broker {where} hung up: {ended}")
        said = alert(self._broker)
        if why := refused_by_broker(said):
            return BrokerRefused(f"broker {where} hung up ({said}): {why}")
        hint = "; under TLS: check this device's certificate" if self._broker.tls else ""
        msg = f"broker {where} hung up without an answer: retrying, the rows are kept{hint}"
        return (UnansweredVersion if self.v5 else BrokerUnavailable)(msg)

    def _judge(self, where: str) -> None:
        code = 0 if self._connack is None else int(self._connack.value)
        if code:
            self.abandon()
            if code == UNSUPPORTED_VERSION and self.v5:
                msg = f"broker {where} does not speak MQTT 5"
                raise RefusedVersion(msg)
            raise refusal(code, self._broker.host, self._broker.port)
        if not self._qos1:
            self.abandon()
            msg = f"broker {where} takes QoS 0 only, which acknowledges nothing: allow QoS 1 there"
            raise BrokerRefused(msg)

    def step(self, timeout: float) -> None:
        """Read and write for up to `timeout` s. Raises BrokerUnavailable once the connection has ended."""
        try:
            rc = self._client.loop(timeout)
        except Flooded:
            self.abandon()
            raise
        except _MALFORMED as error:
            self.abandon()
            msg = f"the broker sent something that is not MQTT ({type(error).__name__}): connecting again"
            raise BrokerUnavailable(msg) from error
        if self._goodbye is not None and (rc or not self._client.is_connected()):
            taken_over = int(self._goodbye.value) == TAKEN_OVER
            hint = ", another client took this one's id: two devices with this id?" if taken_over else ""
            msg = f"the broker ended the connection ({self._goodbye}{hint}): connecting again"
            raise BrokerUnavailable(msg)
        if rc:
            msg = f"the connection was lost ({mqtt.error_string(rc)}): connecting again"
            raise BrokerUnavailable(msg)

    def subscribe(self, *topics: str) -> None:
        """Ask for these topics at QoS 1. A broker may grant what it then keeps silent about."""
        _, mid = self._client.subscribe(
            [(topic, SubscribeOptions(qos=1)) for topic in topics] if self.v5 else [(topic, 1) for topic in topics]
        )
        self._asked[mid] = topics

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry: int | None = None,
        user: list[tuple[str, str]] | None = None,
        correlation: bytes | None = None,
        response_topic: str | None = None,
    ) -> int:
        """Send at QoS 1; the message id returned is its `Ack`'s. `expiry` in s. Raises BrokerUnavailable and TooLarge.

        Under 3.1.1 expiry, user properties and correlation data do not exist and are left out.
        """
        properties = None
        if self.v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = "application/json"
            if expiry is not None:
                properties.MessageExpiryInterval = expiry
            if user:
                properties.UserProperty = user
            if correlation is not None:
                properties.CorrelationData = correlation
            if response_topic is not None:
                properties.ResponseTopic = response_topic
        if self.limit is not None and (size := publish_size(topic, payload, properties)) > self.limit:
            raise TooLarge(topic, size, self.limit)
        info = self._client.publish(topic, payload, qos=1, retain=retain and self._retain, properties=properties)
        if info.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_QUEUE_SIZE):
            msg = f"the connection was lost ({mqtt.error_string(info.rc)}): connecting again"
            raise BrokerUnavailable(msg)
        return info.mid

    def close(self) -> None:
        """Say goodbye (no will) and hang up; never raises, never waits for the broker."""
        with suppress(*_MALFORMED):
            self._client.disconnect()
            self._client.loop(0.1)
        self.abandon()

    def abandon(self) -> None:
        """Hang up without goodbye: the broker publishes the will."""
        sock = self._client.socket()
        if sock is not None:
            with suppress(OSError):
                sock.close()

    # ---- paho's callbacks, all called from within `loop`

    def _on_connect(
        self, _c: object, _u: object, _f: object, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._connack = reason
        allowed = int(getattr(properties, "ReceiveMaximum", 65535))
        self.window = max(1, min(IN_FLIGHT, allowed - _SPARE))
        self.limit = getattr(properties, "MaximumPacketSize", None)
        self._since = time.monotonic()
        self._retain = bool(getattr(properties, "RetainAvailable", 1))
        self._qos1 = int(getattr(properties, "MaximumQoS", 2)) >= 1

    def _on_disconnect(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        self._goodbye = reason

    def _on_subscribe(self, _c: object, _u: object, mid: int, reasons: list[ReasonCode], _p: object) -> None:
        self.subscribed = True
        codes = (int(reason.value) for reason in reasons)
        asked = zip(self._asked.pop(mid, ()), codes, strict=False)
        self.denied += [(topic, code) for topic, code in asked if code >= FAILURE]

    def _on_publish(self, _c: object, _u: object, mid: int, reason: ReasonCode, _p: object) -> None:
        self._taken = self._taken or int(reason.value) < FAILURE
        self.acks.append(Ack(mid, int(reason.value)))

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        properties = message.properties
        self.incoming.append(
            Incoming(
                topic=message.topic,
                payload=bytes(message.payload),
                retained=message.retain,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
            )
        )


def open_session(
    broker: BrokerSettings,
    client_id: str,
    *,
    will: tuple[str, bytes] | None = None,
    prefer: int = V5,
    fall_back: bool = True,
    spoke_5: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> Session:
    """Connect with MQTT 5, or with 3.1.1 where the broker does not answer 5. See `Session.version`.

    `prefer` = V311 tries only that: for a broker known to speak nothing else; `fall_back` = False tries only
    `prefer`, and of a broker that `spoke_5` before, silence is no answer: it has to refuse 5. Raises as `Session.open`;
    when both versions fail, what 3.1.1 got for an answer, being the plainer of the two.
    """
    session = Session(broker, client_id, will=will, version=prefer)
    try:
        session.open(stopping)
    except UnansweredVersion as error:
        refused = isinstance(error, RefusedVersion)
        if not fall_back or (spoke_5 and not refused):
            raise
        session = Session(broker, client_id, will=will, version=V311)
        session.guessed = not refused
        session.open(stopping)
    return session

"""One connection of a subscriber to its broker, and what a refusal means."""

from __future__ import annotations

import ssl
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.contract import SIZE_LIMIT
from edge.errors import BrokerRefused, BrokerUnavailable
from edge_aggregate.broker import password_of, reason_of, tls_context
from edge_aggregate.mqtt_client import Client, hang_up, turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from edge.errors import EdgeError
    from edge_aggregate.broker import Broker

PACKET_LIMIT: Final = SIZE_LIMIT + 4096
"""Bytes of a packet, told to the broker in CONNECT: larger ones it drops, and nobody here sees them."""
KEEPALIVE_S: Final = 60
"""A broker hangs up on who says nothing for one and a half of it: longer than a commit takes on a machine in need."""
CONNECT_S: Final = 3.0
"""Longest wait for TCP, for the TLS handshake, and for CONNACK."""
QUEUE: Final = 65_535
NOT_AUTHORISED: Final = 0x87

_MALFORMED: Final = (OSError, ValueError, LookupError, AssertionError, struct.error, MQTTException)
"""What paho raises on a socket's end and on packets that are none."""
_WAIT: Final = {0x80, 0x83, 0x88, 0x89, 0x97, 0x9F}
_MEND: Final = {
    0x85: "client id not valid: give --client-id",
    0x86: "bad user name or password: mend --username and --password-file",
    NOT_AUTHORISED: "not authorised: mend the login, the certificate, or the client id, which a broker may want to be "
    "the certificate's name",
    0x8A: "banned: ask the broker's administrator",
    0x8C: "it asks for an authentication that is not supported",
}
_ALERTS: Final = {
    "CERTIFICATE_EXPIRED": "this certificate has ended: renew --tls-cert",
    "CERTIFICATE_REVOKED": "this certificate is revoked: make a new one",
    "UNKNOWN_CA": "the broker's CA did not sign --tls-cert",
    "CERTIFICATE_REQUIRED": "the broker wants a certificate: give --tls-cert and --tls-key",
    "HANDSHAKE_FAILURE": "the broker wants a certificate, or shares no cipher: give --tls-cert and --tls-key",
    "WRONG_VERSION_NUMBER": "is this the TLS port?",
    "UNEXPECTED_EOF": "is this the TLS port? see the broker's log",
}


class Speaks311Only(BrokerRefused):
    """MQTT 5 was refused, hung up on or met with silence, and 3.1.1 was not."""


class Connection:
    """One MQTT 5 connection, from CONNECT to its end; driven by one thread, thrown away afterwards.

    Nothing happens outside `open`, `step`, `publish` and `close`.

    Args:
        broker: where to.
        client_id: under which the broker keeps the session.
        keep_s: how long it does after the connection; 0: not at all.
        receive: messages that it may send before one is acknowledged.
        on_message: called with each that came, from within `step`.
        on_counts: called with those on `…/counts` instead: the packet's number (0 at QoS 0), topic and payload.

    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        keep_s: int,
        receive: int,
        on_message: Callable[[mqtt.MQTTMessage], None],
        on_counts: Callable[[int, bytes, bytes], None] | None = None,
    ) -> None:
        self._on_counts = on_counts
        self._broker, self._client_id = broker, client_id
        self._connack: ReasonCode | None = None
        self._goodbye: ReasonCode | None = None
        self.granted: dict[int, list[int]] = {}
        """Answers to `subscribe` and `unsubscribe`, by its number."""
        self.published: dict[int, int] = {}
        """Answers to `publish`, by its number."""
        self.resumed = False
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.MaximumPacketSize = PACKET_LIMIT
        asked.ReceiveMaximum = min(receive, QUEUE)
        asked.SessionExpiryInterval = keep_s
        self._asked = asked
        self._clean = keep_s == 0
        self._on_message = on_message
        self._client = self._ours()

    def _ours(self) -> Client:
        client = self._make(MQTTProtocolVersion.MQTTv5, self._client_id)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_counts = self._on_counts
        client.on_message = lambda _c, _u, message: self._on_message(message)
        return client

    def _make(self, protocol: MQTTProtocolVersion, client_id: str) -> Client:
        v5 = protocol == MQTTProtocolVersion.MQTTv5
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if v5 else False,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(0)
        client.on_socket_register_write = lambda *_: None  # says that `turn` writes: acknowledgements go out together
        context = tls_context(self._broker)
        if context is not None:
            client.tls_set_context(context)
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, password_of(self._broker))
        return client

    def open(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Connect and wait for the answer, or return unconnected when `stopping` says so.

        Raises BrokerUnavailable (waiting helps) or BrokerRefused.
        """
        try:
            self._connect(stopping)
        except _Unanswered as error:
            if stopping() or not self._speaks_311(stopping):
                raise BrokerUnavailable(str(error)) from error
            self._client = self._ours()
            try:  # once more: it may just have been starting
                self._connect(stopping)
            except _Unanswered:
                msg = (
                    f"{self._broker.name} speaks MQTT 3.1.1 only: the aggregator needs MQTT 5, as in Mosquitto 1.6 and "
                    f"later, EMQX, HiveMQ, VerneMQ"
                )
                raise Speaks311Only(msg) from error

    def _connect(self, stopping: Callable[[], bool]) -> None:
        try:
            self._client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=KEEPALIVE_S,
                clean_start=self._clean,
                properties=self._asked,
            )
        except (OSError, UnicodeError) as error:
            raise self._no_connection(error) from error
        end = time.monotonic() + CONNECT_S
        while self._connack is None and not stopping():
            try:
                rc = turn(self._client, 0.1)
            except _MALFORMED as error:
                self.abandon()
                msg = f"{self._broker.name} answered something that is not MQTT 5 ({type(error).__name__})"
                raise _Unanswered(msg) from error
            if self._connack is None and (rc or time.monotonic() > end):
                self.abandon()
                what = "hung up without an answer" if rc else "accepts connections and does not answer"
                msg = f"{self._broker.name} {what}"
                raise _Unanswered(msg)
        if self._connack is None:
            self.abandon()
        elif code := int(self._connack.value):
            self.abandon()
            if code == 0x84:
                msg = f"{self._broker.name} does not speak MQTT 5"
                raise _Unanswered(msg)
            raise self._refusal(code)

    def _refusal(self, code: int) -> EdgeError:
        text = _MEND.get(code, str(self._connack).lower() + ": see the broker's log")
        msg = f"{self._broker.name} refused the connection (0x{code:02X}, {text})"
        return (BrokerUnavailable if code in _WAIT else BrokerRefused)(msg)

    def _no_connection(self, error: Exception) -> EdgeError:
        where = self._broker.name
        if isinstance(error, ssl.SSLCertVerificationError):
            what = error.verify_message
            msg = f"{where}: TLS failed: broker not trusted ({what}): check --tls-ca and the host's name"
            return BrokerRefused(msg)
        if isinstance(error, ssl.SSLError):
            reason = error.reason or str(error)
            mend = next((text for name, text in _ALERTS.items() if name in reason), "check --tls-ca and --tls-cert")
            return BrokerRefused(f"{where}: TLS failed ({reason}): {mend}")
        return BrokerUnavailable(f"{where} cannot be reached ({reason_of(error)})")

    def _speaks_311(self, stopping: Callable[[], bool]) -> bool:
        """Whether the broker lets the same client in that speaks the older version."""
        said: list[int] = []
        client = self._make(MQTTProtocolVersion.MQTTv311, self._client_id)
        client.on_connect = lambda _c, _u, _f, reason, _p: said.append(int(reason.value))
        try:
            client.connect(self._broker.host, self._broker.port, keepalive=KEEPALIVE_S)
            end = time.monotonic() + CONNECT_S
            while not said and not stopping() and time.monotonic() < end and not turn(client, 0.1):
                pass
            client.disconnect()
        except _MALFORMED:
            pass
        finally:
            hang_up(client)
        return said == [0]

    def step(self, timeout: float) -> None:
        """Read and write for up to `timeout` s. Raises BrokerUnavailable once the connection has ended."""
        try:
            rc = turn(self._client, timeout)
        except _MALFORMED as error:
            self.abandon()
            msg = f"{self._broker.name} sent something that is not MQTT ({type(error).__name__})"
            raise BrokerUnavailable(msg) from error
        self._check(rc)

    def _check(self, rc: int) -> None:
        if not rc and self._goodbye is None:
            return
        self.abandon()
        if self._goodbye is not None and int(self._goodbye.value) == 0x8E:
            msg = f"{self._broker.name}: another client took this one's id: give each subscriber its own --client-id"
            raise BrokerUnavailable(msg)
        why = mqtt.error_string(MQTTErrorCode(rc)) if self._goodbye is None else str(self._goodbye)
        msg = f"{self._broker.name}: the connection was lost ({why.rstrip('.').lower()})"
        raise BrokerUnavailable(msg)

    def subscribe(self, *wanted: tuple[str, int]) -> int:
        """Ask for these (topic, QoS); the number under which `granted` will say what became of it.

        What is retained of a topic at QoS 1 does not come: counts are never retained, but by somebody who means harm.
        """
        asked = [(topic, SubscribeOptions(qos=qos, retainHandling=2 if qos else 0)) for topic, qos in wanted]
        rc, mid = self._client.subscribe(asked)
        self._check(rc)
        return int(mid or 0)

    def unsubscribe(self, topic: str) -> int:
        """Take no more of it; the number under which `granted` has the answer."""
        rc, mid = self._client.unsubscribe(topic)
        self._check(rc)
        return int(mid or 0)

    def acknowledge(self, mids: list[int]) -> None:
        """Tell the broker that these need not come again. Raises BrokerUnavailable."""
        for mid in mids:
            try:
                rc = self._client.ack(mid, 1)
            except _MALFORMED as error:
                msg = f"{self._broker.name}: the connection was lost ({type(error).__name__})"
                raise BrokerUnavailable(msg) from error
            self._check(rc)

    def publish(self, topic: str, payload: bytes, *, answer_to: str, correlation: bytes, expiry: int) -> int:
        """Send a request at QoS 1; the number under which `published` will have the reason code."""
        said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        said.ContentType = "application/json"
        said.ResponseTopic = answer_to
        said.CorrelationData = correlation
        said.MessageExpiryInterval = expiry
        info = self._client.publish(topic, payload, qos=1, properties=said)
        self._check(info.rc)
        return info.mid

    def close(self) -> None:
        """Let what was said go out, say goodbye and hang up; never raises, waits a second at most."""
        end = time.monotonic() + 1
        with suppress(*_MALFORMED):
            while self._client.want_write() and time.monotonic() < end:
                if turn(self._client, 0.05):
                    break
            self._client.disconnect()
            turn(self._client, 0.05)
        self.abandon()

    def abandon(self) -> None:
        """Hang up without a goodbye."""
        hang_up(self._client)

    # ---- paho's callbacks, all called from within `loop`

    def _on_connect(
        self, _c: object, _u: object, flags: mqtt.ConnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._connack, self.resumed = reason, bool(flags.session_present)

    def _on_disconnect(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: Properties | None) -> None:
        self._goodbye = reason

    def _on_subscribe(self, _c: object, _u: object, mid: int, reasons: list[ReasonCode], _p: object) -> None:
        self.granted[mid] = [int(reason.value) for reason in reasons]

    def _on_publish(self, _c: object, _u: object, mid: int, reason: ReasonCode, _p: object) -> None:
        self.published[mid] = int(reason.value)


class _Unanswered(Exception):
    """MQTT 5's CONNECT got no answer that it knows."""

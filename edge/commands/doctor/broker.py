"""The way to the broker, step by step: name, TCP, TLS, login, and a message that has to come back."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from edge.commands.doctor.finding import Finding, Level
from edge.contract import ContractError, Status, Topics, decode
from edge.errors import BrokerUnavailable, ConfigError, EdgeError
from edge.process.logs import event
from edge.publisher.broker import certificate_days, tls_context
from edge.publisher.health import ENDING_DAYS
from edge.publisher.reason_codes import FAILURE, REASONS
from edge.publisher.session import CONNECT_S, V5, V311, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.config import Config
    from edge.config.schema import MqttSection
    from edge.publisher.session import Session

ANSWER_S: Final = 5.0
_KEPT: Final = "windows wait in the outbox and nobody sees them"


def broker(config: Config) -> Iterator[Finding]:
    """Ends at the first step that fails: the later ones would only say it again."""
    mqtt = config.mqtt
    if mqtt is None:
        yield Finding("ok", "broker", "none configured: nothing is published")
        return
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        found = socket.getaddrinfo(mqtt.host, mqtt.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        mend = "mend mqtt.host, or the resolver: resolvectl query HOST"
        reason = getattr(error, "strerror", None) or error
        yield Finding("error", "broker", f"name {mqtt.host} is not resolved ({reason})", _KEPT, mend)
        return
    yield Finding("ok", "broker", f"name: {mqtt.host} is {found[0][4][0]}")
    try:
        sock = socket.create_connection((mqtt.host, mqtt.port), CONNECT_S)
    except OSError as error:
        what = f"tcp: {where} cannot be reached ({error.strerror or error})"
        yield Finding("error", "broker", what, _KEPT, "is the broker up, mqtt.port right, a firewall between?")
        return
    with closing(sock):
        yield Finding("ok", "broker", f"tcp: {where} answers")
        if mqtt.tls is not None:
            tls = list(_tls(mqtt, sock))
            yield from tls
            if tls[0].level == "error":
                return
    yield from _certificate(mqtt)
    yield from _login(config, mqtt)


def _tls(mqtt: MqttSection, sock: socket.socket) -> Iterator[Finding]:
    try:
        if mqtt.tls is None:
            return
        with tls_context(mqtt.tls).wrap_socket(sock, server_hostname=mqtt.host) as secure:
            yield Finding("ok", "broker", f"tls: {secure.version()}, the broker's certificate is good")
    except ConfigError as error:
        yield Finding("error", "broker", f"tls: {error}", _KEPT, "mend [mqtt] tls")
    except ssl.SSLCertVerificationError as error:
        mend = {
            9: "the clock is behind: see clock above",
            10: "the broker needs a new certificate; or the clock is wrong",
            62: "mqtt.host must be a name in the broker's certificate",
            64: "mqtt.host must be an address in the broker's certificate",
        }.get(error.verify_code, "mqtt.tls.ca must be the CA that signed the broker's certificate")
        yield Finding("error", "broker", f"tls: broker not trusted ({error.verify_message})", _KEPT, mend)
    except OSError as error:
        mend = "is this the TLS port? does the broker take this device's certificate?"
        yield Finding("error", "broker", f"tls: no handshake ({getattr(error, 'reason', None) or error})", _KEPT, mend)


def _certificate(mqtt: MqttSection) -> Iterator[Finding]:
    days = certificate_days(mqtt.tls, datetime.now(UTC))
    if days is None:
        return
    level: Level = "ok" if days >= ENDING_DAYS else "warning" if days > 0 else "error"
    mend = ("then the broker refuses this device", "renew mqtt.tls.cert; no restart is needed") if level != "ok" else ()
    yield Finding(level, "broker", f"certificate: ends in {days:g} days", *mend)


def _login(config: Config, mqtt: MqttSection) -> Iterator[Finding]:
    topics = Topics(mqtt.root, config.device.site, config.device.id)
    try:
        session = open_session(
            mqtt,
            f"{config.device.id}-doctor",  # another client id: the publisher's own session stays
            prefer=V311 if mqtt.protocol == "3.1.1" else V5,
            fall_back=mqtt.protocol == "auto",
        )
    except EdgeError as error:
        mend = "mend mqtt.username, password_file, tls, or the broker's users"
        yield Finding("error", "broker", f"login: {error}", _KEPT, mend)
        return
    try:
        yield Finding("ok", "broker", f"login: taken, MQTT {'5' if session.v5 else '3.1.1'}")
        yield from _delivery(session, topics)
    except EdgeError as error:
        yield Finding("error", "broker", f"delivery: {error}", _KEPT, "see the broker's log")
    finally:
        session.close()


def _delivery(session: Session, topics: Topics) -> Iterator[Finding]:
    """A publish is proven by its delivery: a subscription may be granted and stay silent, so may a PUBACK."""
    topic = topics(f"reply/doctor-{secrets.token_hex(4)}")
    session.subscribe(topic, topics("status"))
    _wait(session, lambda: session.subscribed)
    mid = session.publish(topic, event("doctor").encode())
    _wait(session, lambda: any(ack.mid == mid for ack in session.acks) and _came(session, topic))
    code = next((ack.code for ack in session.acks if ack.mid == mid), None)
    acl = f"in the broker's ACL, let this device write {topics('#')} and read {topics('cmd/#')}, status and reply/#"
    if code is None or code >= FAILURE:
        said = "no answer" if code is None else f"0x{code:02X}, {REASONS.get(code, 'unknown reason')}"
        yield Finding("error", "broker", f"delivery: a publish to {topic} was not taken ({said})", _KEPT, acl)
    elif _came(session, topic):
        yield Finding("ok", "broker", f"delivery: a message to {topic} came back")
    else:
        yield Finding(
            "warning" if session.v5 else "error",
            "broker",
            f"delivery: {topic} was acknowledged and did not come back",
            "commands may not arrive" if session.v5 else "MQTT 3.1.1 does not tell a publish that was thrown away",
            acl,
        )
    for message in session.incoming:
        if message.topic == topics("status"):
            yield from _announced(message.payload)


def _announced(payload: bytes) -> Iterator[Finding]:
    try:
        status = decode(Status, payload)
    except ContractError:
        return
    if status.state == "online":
        yield Finding("ok", "broker", f"the publisher is online, version {status.version}")
    else:
        mend = "systemctl status edge-publisher; journalctl -u edge-publisher -n 30"
        yield Finding("warning", "broker", f"the publisher is {status.state} there", _KEPT, mend)


def _came(session: Session, topic: str) -> bool:
    return any(message.topic == topic for message in session.incoming)


def _wait(session: Session, done: Callable[[], bool]) -> None:
    """Step until `done`, a few seconds at most; some brokers hang up on a publish that they deny."""
    end = time.monotonic() + ANSWER_S
    with suppress(BrokerUnavailable):
        while not done() and time.monotonic() < end:
            session.step(0.1)

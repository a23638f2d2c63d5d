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
from edge.publisher.health import ENDING_DAYS
from edge.publisher.home_assistant import discovery
from edge.publisher.mqtt_client import TooLarge
from edge.publisher.reason_codes import FAILURE, REASONS
from edge.publisher.session import CONNECT_S, V5, V311, open_session
from edge.publisher.tls import broker_distrusted, certificate_days, refused_by_broker, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.config import Config
    from edge.config.schema import MqttSection
    from edge.publisher.session import Session

ANSWER_S: Final = 5.0
COUNTS_BYTES: Final = 4096
"""No window, and no health, is longer."""
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
    except (OSError, UnicodeError) as error:  # no name can be as UnicodeError says
        mend = "mend mqtt.host, or the resolver: resolvectl query HOST"
        said = getattr(error, "strerror", None) or error
        yield Finding("error", "broker", f"name {mqtt.host} is not resolved ({said})", _KEPT, mend)
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
    if mqtt.tls is None:
        return
    try:
        with tls_context(mqtt.tls).wrap_socket(sock, server_hostname=mqtt.host) as secure:
            days = _days_left(secure)
            what = f"tls: {secure.version()}, the broker's certificate is good"
            if days >= ENDING_DAYS:
                yield Finding("ok", "broker", what)
            else:
                mend = "renew it there: lab_ca.sh or your PKI, then broker.yml"
                yield Finding("warning", "broker", f"{what} and ends in {days:g} days", "then nobody gets in", mend)
    except ConfigError as error:
        yield Finding("error", "broker", f"tls: {error}", _KEPT, "mend [mqtt] tls")
    except ssl.SSLCertVerificationError as error:
        what, mend = broker_distrusted(error, mqtt.tls, mqtt.host)
        yield Finding("error", "broker", f"tls: broker not trusted, {what}", _KEPT, mend)
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error)
        mend = refused_by_broker(reason) or "is this the TLS port? does the broker take this device's certificate?"
        yield Finding("error", "broker", f"tls: no handshake ({reason})", _KEPT, mend)


def _days_left(secure: ssl.SSLSocket) -> float:
    """Until the broker's own certificate ends; who verifies it is told."""
    end = str((secure.getpeercert() or {})["notAfter"])
    return round((ssl.cert_time_to_seconds(end) - time.time()) / 86400, 1)


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
            f"{config.device.id}.doctor",  # of the certificate's name, and another: the publisher's own session stays
            prefer=V311 if mqtt.protocol == "3.1.1" else V5,
            fall_back=mqtt.protocol == "auto",
        )
    except EdgeError as error:
        mend = "mend what it names: mqtt.username and password_file, tls, or the broker's users"
        yield Finding("error", "broker", f"login: {error}", _KEPT, mend)
        return
    try:
        yield Finding("ok", "broker", f"login: taken, MQTT {'5' if session.v5 else '3.1.1'}")
        yield from _delivery(session, topics)
        yield from _largest(session, topics, mqtt.home_assistant)
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


def _largest(session: Session, topics: Topics, home_assistant: str | None) -> Iterator[Finding]:
    """Whether the largest message that the publisher sends goes through: a broker may hang up on it, each time anew."""
    level: Level = "error"
    whose, size, why = "counts", COUNTS_BYTES, _KEPT
    if home_assistant is not None:
        config = f"{home_assistant}/device/{topics.device}/config"
        size = len(discovery(topics)) + len(config)
        whose, why, level = "Home Assistant's", "Home Assistant does not learn of this device", "warning"
    topic = topics(f"reply/doctor-{secrets.token_hex(4)}")
    mend = f"raise the broker's packet size limit (Mosquitto: max_packet_size, message_size_limit) over {size + 1024}"
    what = f"size: the largest message ({whose}, {size} bytes)"
    try:
        mid = session.publish(topic, b" " * size)
    except TooLarge as error:
        yield Finding(level, "broker", f"{what} is over the broker's limit of {error.limit}", why, mend)
        return
    except BrokerUnavailable:  # hung up already, on the message before
        return
    _wait(session, lambda: any(ack.mid == mid for ack in session.acks))
    code = next((ack.code for ack in session.acks if ack.mid == mid), None)
    if code is None:
        yield Finding(level, "broker", f"{what} was not answered, or the broker hung up on it", why, mend)
    elif code in {0x95, 0x97}:
        yield Finding(level, "broker", f"{what} was refused (0x{code:02X}, {REASONS[code]})", why, mend)
    elif code < FAILURE:
        yield Finding("ok", "broker", f"{what} is taken")


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

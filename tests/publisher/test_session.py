"""Each answer a broker can give to CONNECT has its error; a PUBACK's reason code reaches the caller."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from edge.commands.demo.subscriber import Broker
from edge.config.hosts import is_loopback
from edge.errors import BrokerRefused, BrokerUnavailable, ConfigError, EdgeError
from edge.process.logs import event
from edge.publisher.reason_codes import REASONS
from edge.publisher.service import Publisher
from edge.publisher.session import V5, V311, Session, UnansweredVersion, open_session
from edge.publisher.tls import tls_context
from tests.support.appliance import configuration
from tests.support.broker import FalseBroker, connack5, connack311, free_port

WAITING = {0x80, 0x83, 0x88, 0x89, 0x97, 0x9F}


def opened(answers: dict[int, bytes | None], **options: int) -> Session:
    """A session with a broker that answers so; raises as `open_session`."""
    with FalseBroker(answers) as broker:
        session = open_session(Broker("127.0.0.1", broker.port), "kiosk-07", will=("w", b"{}"), **options)  # type: ignore[arg-type]
        session.abandon()
        return session


@pytest.mark.parametrize("code", sorted(set(REASONS) - {0x84, 0x99}))
def test_each_refusal_of_mqtt_5(code: int) -> None:
    with pytest.raises(EdgeError, match=f"0x{code:02X}, ") as caught:
        opened({5: connack5(code)})
    assert isinstance(caught.value, BrokerUnavailable if code in WAITING else BrokerRefused)
    assert REASONS[code] in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (1, BrokerRefused, "0x84, unsupported protocol version"),
        (2, BrokerRefused, "0x85, client identifier not valid"),
        (3, BrokerUnavailable, "0x88, server unavailable"),
        (4, BrokerRefused, "0x86, bad user name or password"),
        (5, BrokerRefused, "0x87, not authorised"),
    ],
)
def test_each_refusal_of_mqtt_3_1_1(code: int, kind: type[EdgeError], words: str) -> None:
    with pytest.raises(kind, match=words):
        opened({5: connack311(1), 4: connack311(code)})


@pytest.mark.parametrize("answer", [connack5(0x84), connack311(1), b"", None])
def test_falls_back_where_mqtt_5_gets_no_answer(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.publisher.session.CONNACK_S", 5.0)
    answers: dict[int, bytes | None] = {4: connack311(0)}
    if answer != b"":
        answers[5] = answer
    assert opened(answers).version == V311
    with pytest.raises(UnansweredVersion):
        opened(answers, fall_back=False)


@pytest.mark.parametrize(("answer", "refused"), [(connack5(0x84), True), (connack311(1), True), (b"", False)])
def test_a_broker_that_spoke_5_is_believed_only_when_it_says_that_it_does_not(
    answer: bytes,
    refused: bool,  # noqa: FBT001
) -> None:
    """Or one that was slow once, after its restart say, would be spoken to by 3.1.1 for good."""
    answers: dict[int, bytes | None] = {4: connack311(0)}
    if answer:
        answers[5] = answer
    assert opened(answers).guessed is not refused
    if refused:
        assert opened(answers, spoke_5=True).version == V311
    else:
        with pytest.raises(UnansweredVersion):
            opened(answers, spoke_5=True)


def test_a_slow_broker_is_asked_for_5_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[int, bytes | None] = {4: connack311(0), 5: None}
    with FalseBroker(answers) as broker:
        publisher = Publisher(configuration(tmp_path, broker.port), drain_timeout=None, lifeline=False)

        def speaks() -> bool:
            publisher._connect()
            assert publisher._session is not None
            publisher._session.abandon()
            return publisher._session.v5

        assert not speaks()
        answers[5] = connack5(0)
        assert speaks()
        del answers[5]
        with pytest.raises(UnansweredVersion) as silent:
            speaks()
        monkeypatch.setattr("edge.publisher.service.SPOKE_5_S", 0)
        publisher._lost(silent.value)
        assert not speaks(), "an hour later it may be another broker"
        answers[5] = connack5(0x84)
        assert not speaks()
        assert not speaks()
    assert broker.asked == [5, 4, 5, 5, 5, 4, 5, 4, 4], "what it said itself is remembered"


def test_accepted_as_mqtt_5_and_keeps_to_the_brokers_limits() -> None:
    session = opened({5: bytes((0x20, 6, 0, 0, 3, 0x21, 0, 20))})
    assert (session.version, session.window) == (V5, 16)
    assert opened({5: connack5(0)}).window == 50
    with pytest.raises(BrokerRefused, match="QoS 0 only"):
        opened({5: bytes((0x20, 5, 0, 0, 2, 0x24, 0))})


def test_a_reason_paho_does_not_know() -> None:
    for code in (0x99, 0xFE):
        with pytest.raises(EdgeError):
            opened({5: connack5(code)})


def test_no_broker_silence_and_rubbish(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        open_session(Broker("127.0.0.1", free_port()), "kiosk-07")
    monkeypatch.setattr("edge.publisher.session.CONNACK_S", 0.5)
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        opened({5: None, 4: None})
    for rubbish in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x7f", b"\xff" * 64, b"\x20\x03\x00\x00\x05"):
        with pytest.raises(EdgeError):
            opened({5: rubbish, 4: rubbish})


def test_stopping_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.publisher.session.CONNACK_S", 120.0)
    began = time.monotonic()
    with FalseBroker({5: None}) as broker:
        session = open_session(Broker("127.0.0.1", broker.port), "k", stopping=lambda: time.monotonic() > began + 0.3)
    assert time.monotonic() - began < 60
    session.close()


def test_a_puback_brings_its_reason() -> None:
    with FalseBroker({5: connack5(0) + bytes((0x40, 3, 0, 1, 0x87))}) as broker:
        session = open_session(Broker("127.0.0.1", broker.port), "k")
        mid = session.publish("t", b"x", user=[("id", "a/1")], expiry=5)
        end = time.monotonic() + 5
        while not session.acks and time.monotonic() < end:
            session.step(0.1)
        session.close()
    assert mid == 1
    assert [(ack.mid, ack.code) for ack in session.acks] in (
        [(1, 0x87)],
        [],
    )  # [] where it overtook the publish


@pytest.mark.parametrize(
    ("level", "answer", "code"),
    [
        (5, connack5(0) + bytes((0x90, 5, 0, 1, 0, 1, 0x87)), 0x87),
        (4, connack311(0) + bytes((0x90, 4, 0, 1, 1, 0x80)), 0x80),
    ],
)
def test_a_suback_brings_its_reasons(level: int, answer: bytes, code: int) -> None:
    with FalseBroker({level: answer}) as broker:
        session = open_session(Broker("127.0.0.1", broker.port), "k", prefer=level)
        session.subscribe("granted", "denied")
        end = time.monotonic() + 30
        while not session.subscribed and time.monotonic() < end:
            session.step(0.1)
        session.close()
    assert session.denied == [("denied", code)]


def test_plain_only_on_loopback_or_when_asked_for() -> None:
    assert all(map(is_loopback, ("localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("broker.local", "10.0.0.1", "localhost.example", "0.0.0.0", "[::1]")))  # noqa: S104 - no binding
    with pytest.raises(ConfigError, match=r"insecure = true"):
        Session(Broker("broker.local", 1883), "k")
    Session(Broker("broker.local", 1883, insecure=True), "k")


def test_tls_files_are_checked(tmp_path: Path) -> None:
    class Files:
        ca = tmp_path / "ca.crt"
        cert = None
        key = None

    with pytest.raises(ConfigError, match=r"mqtt\.tls\.ca: .* does not exist"):
        tls_context(Files())
    Files.ca.write_text("not a certificate")
    with pytest.raises(ConfigError, match="cannot be used"):
        tls_context(Files())
    system = ssl.get_default_verify_paths().cafile
    if system is not None:
        Files.ca.write_bytes(Path(system).read_bytes())
        assert tls_context(Files()).verify_mode == ssl.CERT_REQUIRED


def test_password_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password_file"):
        Session(Broker("127.0.0.1", 1, username="u", password_file=tmp_path / "none"), "k")


def test_log_lines_quote_what_needs_it() -> None:
    assert event("x", a=1, b="two words", c="", d='q"') == 'event=x a=1 b="two words" c="" d="q\\""'

"""Pauses grow until something shows that they need not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.commands.demo.subscriber import Broker
from edge.publisher.backoff import LONGEST_RETRY_S, Backoff
from edge.publisher.session import HELD_S, Session
from tests.support.broker import FalseBroker, connack5

if TYPE_CHECKING:
    import pytest


def test_pauses_double_up_to_a_minute_and_only_shrink_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.publisher.backoff.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("edge.publisher.backoff.random.uniform", lambda _low, high: high)
    backoff = Backoff()
    assert not backoff.left
    pauses = []
    for _ in range(8):
        backoff.fail()
        pauses.append(backoff.left)
        backoff.now()
        assert not backoff.left
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_RETRY_S, LONGEST_RETRY_S]
    backoff.shrink()
    backoff.fail()
    assert backoff.left == 1


def test_a_connection_proves_itself_by_what_it_took_and_how_long_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("edge.publisher.session.time.monotonic", lambda: now)
    for answer, proven in ((b"", False), (bytes((0x40, 3, 0, 1, 0x87)), False), (bytes((0x40, 2, 0, 1)), True)):
        with FalseBroker({5: connack5(0) + answer}) as broker:
            session = Session(Broker("127.0.0.1", broker.port), "k")
            session.open()
            session.publish("t", b"x")
            for _ in range(20):
                session.step(0.05)
            assert not session.proven
            now += HELD_S
            assert session.proven == proven
            session.abandon()

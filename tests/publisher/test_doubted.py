"""Rows that the broker refuses, hangs up on or never answers: they hold up no others, and none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.contract import decode_counts
from edge.errors import BrokerUnavailable
from edge.publisher.delivery_stats import ANSWER_S
from edge.publisher.dispatch import GRACE_S, RETRY_S
from edge.publisher.doubted import HOLD_S, MOST, Doubted
from edge.publisher.reason_codes import QUOTA
from edge.publisher.session import Ack
from tests.publisher.test_dispatch import BIRTH, Bench, Clock
from tests.support.appliance import closing

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 60
"""Turns of a minute."""


class Kiosk(Bench):
    """A desk whose broker has something against one row."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answered = 0

    def news(self) -> list[tuple[int, int | None]]:
        """Message id of what was published since, and the seq of a window."""
        new = list(enumerate(self.notes.published, 1))[self.answered :]
        self.answered = len(self.notes.published)
        return [(mid, decode_counts(body).seq if topic.endswith("/counts") else None) for mid, (topic, body, _) in new]

    def commit(self, number: int) -> None:
        """Windows."""
        for _ in range(number):
            self.writer.commit(closing())

    def minute(self, bad: int | None = None, code: int = 0) -> list[int]:
        """Two turns; `bad` is answered with `code`, everything else taken. The seqs that were sent."""
        sent = []
        for _ in range(2):
            self.dispatcher.send(self.outbox, self.session, None)
            new = self.news()
            self.notes.acks[:] = [Ack(mid, code if seq is not None and bad in {seq, 0} else 0) for mid, seq in new]
            self.dispatcher.receive(self.outbox, self.session)
            sent += [seq for _, seq in new if seq is not None]
        self.clock.pass_time(RETRY_S)
        return sent

    def connection(self, bad: int) -> list[int]:
        """Send until the broker hangs up, which it does on one row; the seqs that were sent."""
        sent = []
        for _ in range(3):
            self.dispatcher.send(self.outbox, self.session, None)
            for mid, seq in self.news():
                if seq is not None:
                    sent.append(seq)
                if seq == bad:
                    self.dispatcher.receive(self.outbox, self.session)
                    self.dispatcher.lost(early=True)
                    self.dispatcher.greet(self.session, BIRTH)
                    self.clock.pass_time(60)
                    return sent
                self.notes.acks.append(Ack(mid, 0))
            self.dispatcher.receive(self.outbox, self.session)
            self.clock.pass_time(GRACE_S)
        return sent

    @property
    def unsent(self) -> int:
        """Windows that the broker has not taken."""
        return self.outbox.stats().unsent


@pytest.fixture
def kiosk(tmp_path: Path) -> Kiosk:
    return Kiosk(tmp_path)


@pytest.mark.parametrize("code", [0x99, 0x83, 0x80, QUOTA])
@pytest.mark.parametrize("bad", [1, 3])
def test_a_row_that_is_refused_for_ever_holds_up_no_other(
    kiosk: Kiosk, caplog: pytest.LogCaptureFixture, code: int, bad: int
) -> None:
    kiosk.commit(5)
    asked = 0
    for _ in range(5):
        kiosk.minute(bad, code)
        kiosk.commit(1)
        asked += sum(kiosk.minute(bad, code).count(bad) for _ in range(HOUR))
        assert kiosk.unsent == 1, "the new window went within the hour"
    held = [record.message for record in caplog.records if "event=row-held" in record.message]
    if code == QUOTA:
        assert not held, "no row exceeds a quota by itself"
    else:
        assert held
        assert all(f"row={'b' * 32}/{bad} " in message for message in held)
        assert asked <= 6, "hourly"
    for _ in range(HOUR + 1):
        kiosk.minute()
    assert kiosk.unsent == 0, "the broker was mended"


@pytest.mark.parametrize("code", [0x99, 0x80, QUOTA])
def test_a_broker_that_refuses_everything_gets_all_at_once_when_it_is_mended(
    kiosk: Kiosk, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    kiosk.commit(20)
    for _ in range(2):
        first = kiosk.minute(0, code)
        asked = [seq for _ in range(HOUR) for seq in kiosk.minute(0, code)]
        assert len(first) == 20
        assert len(asked) == HOUR, "one row a minute"
        assert set(asked) == set(range(min(asked), min(asked) + 20)), "each in its turn"
        kiosk.minute()
        kiosk.minute()
        assert kiosk.unsent == 0
        kiosk.commit(20)
    assert "row-held" not in caplog.text


def test_a_drain_tries_what_is_held(kiosk: Kiosk) -> None:
    kiosk.commit(2)
    for _ in range(3):
        kiosk.minute(1, 0x99)
    kiosk.commit(1)
    kiosk.minute(1, 0x99)
    assert kiosk.minute() == []
    kiosk.dispatcher.drain()
    assert kiosk.minute() == [1]
    assert kiosk.unsent == 0


def test_a_row_that_the_broker_hangs_up_on_holds_up_no_other(kiosk: Kiosk, caplog: pytest.LogCaptureFixture) -> None:
    kiosk.commit(5)
    sent = [kiosk.connection(2) for _ in range(10)]
    assert sent[0] == [1, 2, 3, 4, 5][: len(sent[0])]
    assert kiosk.unsent == 1
    assert f"event=row-held row={'b' * 32}/2 " in caplog.text
    kiosk.commit(3)
    assert kiosk.connection(2) == [6, 7, 8], "for an hour"
    kiosk.clock.pass_time(HOLD_S)
    assert kiosk.connection(2) == [2]
    kiosk.commit(1)
    assert kiosk.connection(2) == [9], "once an hour is enough to know it by"
    kiosk.clock.pass_time(HOLD_S)
    assert kiosk.connection(0) == [2]
    assert kiosk.unsent == 0


def test_connections_that_break_by_chance_hold_nothing(kiosk: Kiosk, caplog: pytest.LogCaptureFixture) -> None:
    kiosk.commit(1)
    for _ in range(20):  # each with the one row there is unanswered
        assert kiosk.connection(1) == [1]
    assert kiosk.connection(0) == [1]
    assert "row-held" not in caplog.text


def test_what_a_broker_never_acknowledges_goes_again_over_a_new_connection(kiosk: Kiosk) -> None:
    kiosk.commit(10)
    kiosk.turn()
    kiosk.news()
    for seq in (11, 12):  # what comes later is answered, and proves nothing for what went before
        kiosk.commit(1)
        assert kiosk.minute() == [seq]
        kiosk.dispatcher.delivery.check()
    kiosk.clock.pass_time(1)
    with pytest.raises(BrokerUnavailable, match=f"has not acknowledged a message within {ANSWER_S:.0f} s: connecting"):
        kiosk.dispatcher.delivery.check()
    kiosk.dispatcher.lost(early=True)
    kiosk.dispatcher.greet(kiosk.session, BIRTH)
    kiosk.dispatcher.delivery.check()
    kiosk.clock.pass_time(GRACE_S)
    assert kiosk.minute() + kiosk.minute() == list(range(1, 11))
    assert kiosk.unsent == 0


def test_what_is_remembered_has_an_end() -> None:
    doubted = Doubted(Clock())
    for seq in range(3 * MOST):
        doubted.refused(("b" * 32, seq), "no")
        assert len(doubted.waiting) <= MOST

"""A clock that is wrong at boot, jumps by years, or sees no broker for a month."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from edge.commands.demo.subscriber import Broker
from edge.contract import ReplayCommand, encode
from edge.publisher.session import open_session
from edge.types import Vote
from tests.support.appliance import Committing, closing, vision
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.told_clock import ToldClock
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import TimeQuality
    from tests.faults.conftest import Done

pytestmark = needs_mosquitto
BOOT = "a" * 32
DEVICE = "edge/v1/lobby/kiosk-07"
YEAR = timedelta(days=365)
PATIENCE_S = 120


def kiosk(folder: Path, quality: TimeQuality, shift: timedelta = timedelta(0)) -> tuple[ToldClock, Committing]:
    """A clock, and vision's end of an outbox that goes by it."""
    clock = ToldClock(folder / "clock")
    clock.tell(quality, shift=shift)
    return clock, vision(folder, BOOT, clock=clock)


def commit(outbox: Committing, clock: ToldClock) -> int:
    """One window of a minute that ends now, labelled as vision would."""
    quality, now = clock.time_quality(), clock.utcnow()
    close = closing([Vote("masked", "happy")], end=now, seconds=60.0, time_quality=quality, mono_end=clock.monotonic())
    return outbox.commit(close)


def test_wrong_at_boot_then_jumping_by_years(tmp_path: Path, done: Done) -> None:
    clock, outbox = kiosk(tmp_path, "unsynced", -20 * YEAR)
    options = ("--clock", str(tmp_path / "clock"), "--hold", "900")
    with (
        Mosquitto(tmp_path) as broker,
        Ear(broker.port, f"{DEVICE}/counts", f"{DEVICE}/reply/+") as ear,
        Service(tmp_path, broker.port, *options) as service,
        outbox,
    ):
        for _ in range(3):
            commit(outbox, clock)
        service.wait_for("event=connected", PATIENCE_S)
        time.sleep(1)
        assert not ear.counts(), "held for the clock"
        clock.tell("synced")
        wait(lambda: len(ear.counts()) == 3, PATIENCE_S, service.lines)
        for window in (c.window for c in ear.counts()):
            assert window.time_quality == "synced"
            assert abs((clock.utcnow() - window.start).total_seconds()) < 600, "labelled by the clock that was set"
        for shift in (YEAR, timedelta(0), -YEAR, timedelta(0), timedelta(seconds=1)):
            clock.tell("synced", shift=shift)
            for _ in range(3):
                last = commit(outbox, clock)
            wait(lambda: len(ear.keys()) == last, PATIENCE_S, service.lines)  # noqa: B023 - called at once
        assert set(ear.keys().values()) == {1}
        before = {m.payload for m in ear.heard}
        asker = open_session(Broker("127.0.0.1", broker.port), "asker")
        command = ReplayCommand(id="all", boot_id=BOOT, from_=1, to=last)
        asker.publish(f"{DEVICE}/cmd/replay", encode(command), response_topic=f"{DEVICE}/reply/all")
        while not asker.acks:
            asker.step(0.1)
        asker.close()
        wait(lambda: any(m.topic.endswith("/all") for m in ear.heard), PATIENCE_S, service.lines)
        answer = next(m.payload for m in ear.heard if m.topic.endswith("/all"))
        assert answer == b'{"id":"all","sent":%d,"gone":0}' % last, "no jump has emptied the ring"
        assert {m.payload for m in ear.heard} - before == {answer}, "replayed rows are the same rows"
        assert set(ear.keys().values()) == {2}
        assert service.stop() == 0
    done({"clock_jump": 5, "clock_wrong_at_boot": 1}, committed=last, received=len(ear.counts()))


def test_thirty_days_without_a_broker(tmp_path: Path, done: Done) -> None:
    clock, outbox = kiosk(tmp_path, "synced")
    port = free_port()
    with Service(tmp_path, port, "--clock", str(tmp_path / "clock"), "--retry", "1") as service, outbox:
        service.wait_for("event=no-broker", PATIENCE_S)
        for hour in range(30 * 24):
            clock.tell("synced", passed=timedelta(hours=hour))
            last = commit(outbox, clock)
        assert outbox.stats().oldest_s > 29 * 86400
        with Mosquitto(tmp_path, port=port), Ear(port, f"{DEVICE}/counts") as ear:
            wait(lambda: len(ear.keys()) == last, PATIENCE_S, service.lines)
            wait(lambda: outbox.stats().unsent == 0, PATIENCE_S, service.lines)
            assert service.stop() == 0
        assert [c.seq for c in ear.counts()][:1] == [1]
        assert outbox.stats().dropped == 0
    done({"offline_days": 30}, committed=last, received=len(ear.counts()))

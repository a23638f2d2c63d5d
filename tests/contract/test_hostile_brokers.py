"""Brokers that take the login and then hang up, limit packets, or hand on what nobody should read."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from edge.commands.demo.subscriber import Broker
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_command
from edge.publisher.session import V311, open_session
from tests.support.appliance import closing, vision
from tests.support.broker import FalseBroker, Mosquitto, connack5, connack311, needs_mosquitto
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = "edge/v1/lobby/kiosk-07/#"
COMMAND = "edge/v1/lobby/kiosk-07/cmd"
CONFIG = "homeassistant/device/kiosk-07/config"


def commit(folder: Path, number: int) -> None:
    """Let vision commit this many windows."""
    with vision(folder) as outbox:
        for _ in range(number):
            outbox.commit(closing())


def say(port: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish, and wait until the broker has it."""
    session = open_session(Broker("127.0.0.1", port), "say")
    session.publish(topic, payload, retain=retain)
    while not session.acks:
        session.step(0.1)
    session.close()


def connections(service: Service) -> int:
    """How often it connected."""
    return service.lines().count("event=connected")


@pytest.mark.parametrize("answers", [{5: connack5(0)}, {5: connack311(1), 4: connack311(0)}])
def test_a_login_alone_does_not_shorten_the_pause(tmp_path: Path, answers: dict[int, bytes | None]) -> None:
    commit(tmp_path, 1)
    with FalseBroker(answers, hang_up=True) as broker, Service(tmp_path, broker.port) as service:
        wait(lambda: connections(service) >= 2, 30, service.lines)
        time.sleep(6)  # a pause that each login made short again would have let in six more
        assert connections(service) <= 5, service.lines()
        assert service.stop() == 0


@pytest.mark.parametrize("answers", [{5: connack5(0)}, {5: connack311(1), 4: connack311(0)}])
def test_a_broker_that_acknowledges_nothing_is_left(tmp_path: Path, answers: dict[int, bytes | None]) -> None:
    commit(tmp_path, 1)
    options = ("--answer", "2", "--held", "1", "--keepalive", "600")
    with FalseBroker(answers) as broker, Service(tmp_path, broker.port, *options) as service:
        wait(lambda: connections(service) >= 4, 90, service.lines)
        assert service.lines().count("has not acknowledged a message within 2 s: connecting again") >= 3
        assert "event=flapping" not in service.lines(), "it was not the broker that ended them"
        assert service.stop() == 0


@needs_mosquitto
def test_twins_part(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Two devices with one id throw each other off, ever more seldom, and the log says why."""
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    with Service(one, mosquitto.port) as first, Service(two, mosquitto.port) as second:
        wait(lambda: connections(first) + connections(second) >= 4, 60)
        time.sleep(6)
        assert connections(first) + connections(second) <= 12
        wait(lambda: "two devices with this id?" in first.lines() + second.lines(), 60)


@needs_mosquitto
def test_a_packet_over_the_brokers_size_is_named_and_not_sent(tmp_path: Path) -> None:
    commit(tmp_path, 3)
    with (
        Mosquitto(tmp_path, "max_packet_size 4096") as broker,
        Ear(broker.port, "#") as ear,
        Service(tmp_path, broker.port, "--home-assistant", "homeassistant") as service,
    ):
        service.wait_for(f"event=too-large topic={CONFIG}")
        wait(lambda: len(ear.keys()) == 3, 30, service.lines)
        say(broker.port, f"{COMMAND}/identify", b"")
        service.wait_for("command=identify")  # still the same connection
        assert "limit=4096" in service.lines()
        assert connections(service) == 1, service.lines()
        assert service.stop() == 0
    assert not [m for m in ear.heard if m.topic == CONFIG]


@needs_mosquitto
def test_windows_over_the_brokers_size_are_kept_and_go_when_it_is_raised(tmp_path: Path) -> None:
    commit(tmp_path, 60)
    low = Mosquitto(tmp_path, "max_packet_size 700").start()
    with Service(tmp_path, low.port) as service:
        service.wait_for("event=too-large topic=edge/v1/lobby/kiosk-07/counts")
        low.kill()
        with Outbox(tmp_path / "outbox.db") as outbox:
            assert outbox.stats().unsent == 60
        with Mosquitto(tmp_path, port=low.port) as high, Ear(high.port, DEVICE) as ear:
            wait(lambda: len(ear.keys()) == 60, 90, service.lines)
            assert service.stop() == 0
    assert service.lines().count("event=too-large") <= 3, "once for each topic, not for each row"


@needs_mosquitto
@pytest.mark.parametrize(
    ("limit", "protocol"), [("max_packet_size", "3.1.1"), ("message_size_limit", "3.1.1"), ("message_size_limit", "5")]
)
def test_a_broker_that_hangs_up_on_the_announcement_gets_the_counts_and_no_more_announcements(
    tmp_path: Path, limit: str, protocol: str
) -> None:
    """MQTT 3.1.1 cannot say how much a broker takes, and `message_size_limit` does not: they hang up."""
    commit(tmp_path, 3)
    options = ("--home-assistant", "homeassistant", "--protocol", protocol)
    with (
        Mosquitto(tmp_path, f"{limit} 4096") as broker,
        Ear(broker.port, DEVICE) as ear,
        Service(tmp_path, broker.port, *options) as service,
    ):
        service.wait_for("event=announcement-left-out", 60)
        assert set(ear.keys().values()) == {1}, "counts come first, and once"
        assert len(ear.keys()) == 3
        wait(lambda: connections(service) == 3, 60, service.lines)
        say(broker.port, f"{COMMAND}/identify", b"")
        service.wait_for("command=identify")
        assert service.lines().count("event=no-broker") == 2, service.lines()
        assert service.stop() == 0


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_retained_command_of_megabytes(tmp_path: Path, mosquitto: Mosquitto, protocol: str) -> None:
    """MQTT 5: the broker is told what is read, and keeps it. 3.1.1: it is not read, and then not subscribed to."""
    commit(tmp_path, 3)
    huge = open_session(Broker("127.0.0.1", mosquitto.port), "huge", prefer=V311)
    huge.publish(f"{COMMAND}/replay", b" " * 8_000_000, retain=True)
    while not huge.acks:
        huge.step(0.1)
    huge.close()
    topic = DEVICE.replace("#", "counts")
    with Ear(mosquitto.port, topic) as ear, Service(tmp_path, mosquitto.port, "--protocol", protocol) as service:
        wait(lambda: len(ear.keys()) == 3, 60, service.lines)
        if protocol == "5":
            say(mosquitto.port, f"{COMMAND}/identify", b"")
            service.wait_for("command=identify")
            assert connections(service) == 1, service.lines()
        else:
            service.wait_for("event=commands-off", 60)
            service.wait_for("a packet of 80000", 60)  # why, in the line after
            wait(lambda: connections(service) == 2, 60, service.lines)
        assert service.stop() == 0


@needs_mosquitto
def test_hostile_commands_leave_the_service_alone(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 2)
    ask = {"id": "r", "boot_id": "a" * 32, "from": 1, "to": 2**63}
    ancient = {"state": "offline", "boot_id": None, "version": "0", "since": "0001-01-01T00:00:00+14:00"}
    with Ear(mosquitto.port, DEVICE) as ear, Service(tmp_path, mosquitto.port) as service:
        wait(lambda: len(ear.keys()) == 2, 30, service.lines)
        say(mosquitto.port, f"{COMMAND}/replay", json.dumps(ask).encode())
        service.wait_for("replay-refused")
        say(mosquitto.port, DEVICE.replace("#", "status"), json.dumps(ancient).encode())
        say(mosquitto.port, f"{COMMAND}/replay", b"[" * 60_000)
        say(mosquitto.port, f"{COMMAND}/paused", b"\xff\xfe")
        say(mosquitto.port, f"{COMMAND}/pause", b"")
        wait(lambda: (now := read_command(tmp_path)) is not None and now.paused, 30, service.lines)
        assert connections(service) == 1, service.lines()
        assert service.stop() == 0

"""A subscriber's session with a real broker: what ends, refuses, is silent or comes back, and who else is there."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import FalseBroker, Mosquitto, connack5, connack311, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls
from tests.support.subscriber import Devices, Process, environment_with, until
from tests.support.windows import window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.aggregate, needs_mosquitto]

PERSISTENT = "persistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true\n"
QUIET = "from edge_aggregate import subscribe; subscribe.QUIET_S = 1.0"


def test_what_comes_while_it_is_away_waits_in_its_session(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as process, Devices(broker.port) as devices:
        devices.count(range(1, 11))
        until(lambda: process.windows() == 10, "counted", process)
        assert process.end() == 0
        devices.count(range(11, 51))
        process.start()
        until(lambda: process.windows() == 50, "what waited", process)
        assert "session kept" in process.text
        assert process.ask("SELECT SUM(duplicates) FROM windows") == [(0,)]


def test_a_broker_that_crashes_and_comes_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    broker = Mosquitto(tmp_path, PERSISTENT.format(data)).start()
    try:
        with Process(tmp_path, broker.port) as process:
            with Devices(broker.port) as devices:
                devices.count(range(1, 21))
                until(lambda: process.windows() == 20, "before", process)
            broker.kill()
            until(lambda: "trying again" in process.text, "it says so", process)
            broker.start()
            with Devices(broker.port) as devices:
                until(lambda: process.text.count("subscribed") == 2, "back", process)
                devices.count(range(21, 41))
                until(lambda: process.windows() == 40, "after", process)
            assert process.end() == 0
    finally:
        broker.kill()


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    process = Process(tmp_path, broker.port).start(ready=False)
    try:
        until(lambda: "cannot be reached" in process.text, "it says so", process)
        with broker, Devices(broker.port) as devices:
            until(lambda: "subscribed" in process.text, "it comes", process)
            devices.count(range(1, 4))
            until(lambda: process.windows() == 3, "counted", process)
            assert process.end() == 0
    finally:
        process.kill()


def test_a_queue_longer_than_a_batch_is_drained_before_anything_else_is_answered(tmp_path: Path) -> None:
    """The answer to the subscription waits behind the session's queue: what comes meanwhile is kept all the same."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        process = Process(tmp_path, broker.port, "--batch", "10").start()
        assert process.end() == 0
        devices.count(range(1, 1001))
        process.start()
        until(lambda: process.windows() == 1000, "all", process)
        assert process.end() == 0
        assert process.ask("SELECT SUM(duplicates) FROM windows") == [(0,)]


@contextmanager
def group(folder: Path, port: int, environment: dict[str, str] | None = None) -> Iterator[tuple[Process, Process]]:
    """Two subscribers of one name that share a store; the first starts in this environment."""
    one, two = (Process(folder, port, "--share", "figures", name=name) for name in ("one", "two"))
    try:
        yield one.start(environment=environment), two.start()
    finally:
        one.kill()
        two.kill()


def test_several_subscribers_share_one_store(tmp_path: Path) -> None:
    """Each gets a part, under one name; one is killed, and once the broker knows, the other gets all."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices, group(tmp_path, broker.port) as (one, two):
        for device in range(10):
            devices.count(range(1, 31), device=f"kiosk-{device}")
        until(lambda: one.windows() == 300, "all", one)
        one.kill()
        until(lambda: broker.ended("aggregator"), "the broker sees that it is gone")
        devices.count(range(31, 61), device="kiosk-0")
        until(lambda: two.windows() == 330, "the other goes on", two)
        assert two.end() == 0
        assert "session new" in two.text
        runs = {path.name.split("-")[1] for path in one.landing.rglob("*.jsonl")}
        assert len(runs) == 2, "both had a part"
        assert two.ask("SELECT COUNT(*) FROM gaps") == [(0,)]


def test_what_a_broker_gave_to_one_that_had_crashed_is_there_or_a_gap(tmp_path: Path) -> None:
    """A message that it forgets with a dead subscriber's session is known to be missing, and so is asked for."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices, group(tmp_path, broker.port) as (one, two):
        devices.count(range(1, 11))
        until(lambda: one.windows() == 10, "all", one)
        broker.signal(signal.SIGSTOP)  # it then finds a death and messages in one turn, in its own order
        one.kill()
        thaw = threading.Timer(0.5, broker.signal, (signal.SIGCONT,))
        thaw.start()
        devices.count(range(11, 41))
        thaw.join()
        until(lambda: broker.ended("aggregator"), "the broker sees that it is gone")
        devices.count([41])
        missing = "SELECT COALESCE(SUM(last_seq - first_seq + 1), 0) FROM gaps"
        until(lambda: two.windows() + two.ask(missing)[0][0] == 41, "all is there or known to be missing", two)
        assert two.end() == 0


def test_one_that_leaves_a_group_in_order_takes_nothing_along(tmp_path: Path) -> None:
    """Ended under load: every message is in the store, without a replay."""
    patient = environment_with(
        tmp_path, "from edge_aggregate import batches, subscribe; subscribe.LEAVE_S = batches.BUSY_S = 60.0"
    )
    with (
        Mosquitto(tmp_path) as broker,
        Devices(broker.port) as devices,
        group(tmp_path, broker.port, patient) as (one, two),
    ):
        sender = threading.Thread(target=devices.count, args=(range(1, 1001),))
        sender.start()
        until(lambda: one.windows() > 100, "under way", one)
        assert one.end() == 0
        sender.join()
        until(lambda: two.windows() == 1000, "all", two)


def test_an_access_list_that_says_nothing(tmp_path: Path) -> None:
    """Mosquitto grants what it then keeps silent about: a line says what to look at, and delivery alone proves."""
    acl = tmp_path / "acl"
    acl.write_text("user devices\ntopic write edge/#\nuser aggregator\ntopic read elsewhere/#\n")
    acl.chmod(0o644)
    certificates(tmp_path)
    lines = f"{mutual_tls(tmp_path)}\nallow_anonymous false\nacl_file {acl}"
    with Mosquitto(tmp_path, lines) as broker:
        process = Process(tmp_path, broker.port, *tls_options(tmp_path))
        process.start(environment=environment_with(tmp_path, QUIET))
        try:
            publish_as(tmp_path, broker.port, window(1))
            until(lambda: "access list does not let aggregator read" in process.text, "it is said", process)
            assert process.windows() == 0
            process.end()
            acl.write_text("user devices\ntopic write edge/#\nuser aggregator\ntopic read edge/#\n")
            broker.signal(signal.SIGHUP)
            process.start()
            publish_as(tmp_path, broker.port, window(2))
            until(lambda: process.windows() >= 1, "delivered", process)
        finally:
            process.kill()


def certificates(folder: Path) -> None:
    certificate(folder, "ca", "a small authority")
    for name in ("server", "devices", "aggregator"):
        certificate(folder, name, name, "ca")
    for file in folder.glob("*.key"):
        file.chmod(0o644)


def tls_options(folder: Path, name: str = "aggregator") -> tuple[str, ...]:
    files = (("--tls-ca", "ca.crt"), ("--tls-cert", f"{name}.crt"), ("--tls-key", f"{name}.key"))
    return tuple(word for option, file in files for word in (option, str(folder / file)))


def publish_as(folder: Path, port: int, line: dict[str, Any]) -> None:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="devices")
    client.tls_set(str(folder / "ca.crt"), str(folder / "devices.crt"), str(folder / "devices.key"))
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(line["topic"], json.dumps(line["payload"]), qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_with_certificates_and_a_name_that_the_broker_binds(tmp_path: Path) -> None:
    certificates(tmp_path)
    with Mosquitto(tmp_path, mutual_tls(tmp_path)) as broker:
        with Process(tmp_path, broker.port, *tls_options(tmp_path)) as process:
            publish_as(tmp_path, broker.port, window(1))
            until(lambda: process.windows() == 1, "over TLS", process)
            assert process.end() == 0
        certificate(tmp_path, "stranger-ca", "another authority")
        certificate(tmp_path, "stranger", "aggregator", "stranger-ca")
        ca, _, *own = tls_options(tmp_path)
        refused = Process(tmp_path, broker.port, ca, str(tmp_path / "stranger-ca.crt"), *own, name="refused")
        assert refused.start(ready=False).wait() == 77
        assert "TLS failed: broker not trusted" in refused.text


@pytest.mark.parametrize(
    ("answers", "code", "text"),
    [
        ({5: connack5(0x87)}, 77, "refused the connection (0x87, not authorised"),
        ({5: connack5(0x86)}, 77, "bad user name or password: mend --username"),
        ({5: connack5(0x84), 4: connack311(0)}, 77, "speaks MQTT 3.1.1 only: the aggregator needs MQTT 5"),
        ({4: connack311(0)}, 77, "speaks MQTT 3.1.1 only"),
        ({5: connack311(1), 4: connack311(0)}, 77, "speaks MQTT 3.1.1 only"),
    ],
)
def test_a_broker_that_says_no_is_one_line(
    tmp_path: Path, answers: dict[int, bytes | None], code: int, text: str
) -> None:
    with FalseBroker(answers) as broker:
        process = Process(tmp_path, broker.port).start(ready=False)
        assert process.wait() == code, process.text
    assert text in process.text
    assert "Traceback" not in process.text
    assert len(process.text.splitlines()) == 1


def test_two_of_one_name_are_told_what_to_do(tmp_path: Path) -> None:
    """Mosquitto hangs up on the older of the two without a reason, others say why."""
    (tmp_path / "other").mkdir()
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as one:
        with Process(tmp_path / "other", broker.port):
            message = (
                "times in a row: if another client is called aggregator too, each ends the other: give each its own"
            )
            until(lambda: message in one.text, "the first says what it may be", one)
        assert one.end() == 0
    with FalseBroker({5: connack5(0) + b"\xe0\x02\x8e\x00"}) as other:
        two = Process(tmp_path, other.port, name="two").start(ready=False)
        message = "another client took this one's id: give each subscriber its own --client-id"
        until(lambda: message in two.text, "the other says what happened", two)
        assert two.end() == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--broker", "mqtt://user:secret@host"), "--broker: is a URL"),
        (("--broker", "host:70000"), "give HOST or HOST:PORT"),
        (("--broker", "broker.example"), "plain MQTT to broker.example is refused: give --tls-ca, or say --insecure"),
        (("--tls-cert", "/nowhere"), "--tls-cert without --tls-ca"),
        (("--tls-ca", "/nowhere"), "--tls-ca /nowhere: cannot be used"),
        (("--username", "a", "--password-file", "/nowhere"), "--password-file /nowhere: cannot be read"),
        (("--share", "a/b"), "--share: up to 64"),
        (("--root", "a/#"), "--root: topic root 'a/#'"),
        (("--batch", "0"), "--batch is 1 to 20000"),
        (("--client-id", "a b"), "--client-id: up to 100 characters"),
        (("--files", "x.jsonl"), "give --files or --broker, not both"),
    ],
)
def test_a_command_line_that_cannot_be(tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    process = Process(tmp_path, 1, *options).start(ready=False)
    assert process.wait() == 2
    assert text in process.text
    assert "secret" not in process.text
    assert "Traceback" not in process.text

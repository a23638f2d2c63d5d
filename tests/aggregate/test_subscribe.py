"""From a real broker into a store: nothing lost, nothing doubled, whatever ends in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.store import open_store
from edge_aggregate.store.fleet import read_fleet
from prometheus_client.parser import text_string_to_metric_families

from tests.support.broker import FalseBroker, Mosquitto, connack5, connack311, free_port, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls
from tests.support.subscriber import Devices, Process, environment_with, until
from tests.support.windows import BOOT, window

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.aggregate, needs_mosquitto]

PERSISTENT = "persistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true\n"


def unacknowledged(process: Process, port: int) -> list[bytes]:
    """What the broker would send this subscriber again."""
    from edge_aggregate.broker import Broker
    from edge_aggregate.connection import Connection

    found: list[bytes] = []
    connection = Connection(
        Broker("127.0.0.1", port),
        "aggregator",
        keep_s=600,
        receive=100,
        on_message=lambda m: found.append(bytes(m.payload)),
    )
    connection.open()
    assert connection.resumed, process.text
    end = time.monotonic() + 2
    while time.monotonic() < end:
        connection.step(0.1)
    connection.close()
    return found


def test_what_a_device_sends_is_counted_and_then_acknowledged(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as process, Devices(broker.port) as devices:
        devices.count(range(1, 301), cells={"unmasked_happy": 14})
        until(lambda: process.windows() == 300, "all are counted", process)
        line = window(300, cells={"unmasked_happy": 14})
        devices.send(line["topic"], line["payload"])
        devices.send(line["topic"], line["payload"], qos=0)
        until(lambda: process.ask("SELECT SUM(duplicates) FROM windows") == [(2,)], "the same again", process)
        assert process.end() == 0
        assert "ended: 302 messages, 300 windows" in process.text
        assert unacknowledged(process, broker.port) == []
    lines = [json.loads(text) for path in sorted(process.landing.rglob("*.jsonl")) for text in path.open()]
    assert len(lines) == 302
    assert lines[0]["payload"]["seq"] == 1


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


QUIET = "from edge_aggregate import subscribe; subscribe.QUIET_S = 1.0"
CRASH = """
import os, signal, sys
from edge_aggregate.store.store import Store
Store.merge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_landing_and_commit_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The log has it, the store does not, the broker was told nothing: counted once, from the log."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        process = Process(tmp_path, broker.port)
        process.start(environment=environment_with(tmp_path, CRASH))
        try:
            devices.count(range(1, 41))
            assert process.wait() == -signal.SIGKILL
        finally:
            process.kill()
        landed = list(process.landing.rglob("*.jsonl"))
        assert landed
        assert process.windows() == 0
        with process:
            until(lambda: process.windows() == 40, "all once", process)
            assert "were landed and not counted: done now" in process.text
            assert process.end() == 0
        assert process.windows() == 40
        assert process.ask("SELECT COUNT(*) FROM gaps") == [(0,)]


def test_killed_again_and_again_under_load(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        process = Process(tmp_path, broker.port, "--every", "0.05").start()
        for round_ in range(4):
            devices.count(range(1 + 200 * round_, 201 + 200 * round_))
            until(lambda least=60 * round_: process.windows() > least, "under way", process)  # type: ignore[misc]
            process.kill()
            process.start()
        until(lambda: process.windows() == 800, "all", process)
        assert process.end() == 0
        assert process.ask("SELECT COUNT(*), MIN(seq), MAX(seq) FROM windows") == [(800, 1, 800)]


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


def test_a_store_that_another_program_holds_is_waited_for_without_acknowledging(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as process, Devices(broker.port) as devices:
        devices.count(range(1, 3))
        until(lambda: process.windows() == 2, "counted", process)
        held = sqlite3.connect(process.store, isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        devices.count(range(3, 13))
        until(lambda: "not acknowledged, tried again" in process.text, "it says so", process)
        began = time.monotonic()
        assert process.end() == 0, "an end does not wait for the other program"
        assert time.monotonic() - began < 15
        assert "landed and not counted: the next start counts them" in process.text
        held.execute("ROLLBACK")
        held.close()
        assert process.windows() == 2
        assert len(unacknowledged(process, broker.port)) == 10
        process.start()
        until(lambda: process.windows() == 12, "all", process)


def test_a_store_that_is_free_again_gets_what_waited(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as process, Devices(broker.port) as devices:
        held = sqlite3.connect(process.store, isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        devices.count(range(1, 11))
        until(lambda: "not acknowledged, tried again" in process.text, "it says so", process)
        held.execute("ROLLBACK")
        held.close()
        until(lambda: process.windows() == 10, "all", process)
        assert process.ask("SELECT SUM(duplicates) FROM windows") == [(0,)], "landed once"
        assert process.end() == 0
        assert unacknowledged(process, broker.port) == []


def test_hostile_messages_are_refused_and_stop_nothing(tmp_path: Path) -> None:
    huge = b'{"a": "' + b"x" * 200_000 + b'"}'
    with Mosquitto(tmp_path) as broker, Process(tmp_path, broker.port) as process, Devices(broker.port) as devices:
        good = window(1, cells={"unmasked_happy": 14})
        for payload in (b"", b"\xff", b"{", b"[" * 5000, b'{"base64":"aGk="}', b"null", huge, b"9" * 60_000):
            devices.send(good["topic"], payload)
        other = window(2, device="kiosk-2")
        devices.send(good["topic"], other["payload"])  # speaks for another
        devices.send("edge/v1/lobby/KIOSK/counts", good["payload"])  # no id
        devices.send("edge/v1/lobby/kiosk-1/status", b"\x00\xff")
        devices.send("edge/v1/lobby/kiosk-1/health", {"boot_id": "x" * 60_000})
        devices.send(good["topic"], good["payload"])
        until(lambda: process.windows() == 1, "the one that is good", process)
        kinds = dict(process.ask("SELECT kind, lines FROM dead_kinds"))
        assert kinds == {"payload": 7, "topic": 2}, "the packet over the limit is the broker's to drop"
        assert process.ask("SELECT SUM(unmasked_happy) FROM windows") == [(14,)]
        until(lambda: "WARNING refused on 'edge/v1/lobby/kiosk-1/status'" in process.text, "said", process)
        assert process.text.count("WARNING refused on") == 3, "one line a kind"
        assert process.end() == 0
        assert unacknowledged(process, broker.port) == []


def status(state: str, boot: str | None, since: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    return {"state": state, "boot_id": boot, "version": "1.0", "since": since, **more}


HEALTH = {
    "boot_id": BOOT,
    "backend": "cpu",
    "rate": "ok",
    "invoke_ms": {"p50": 3.0, "p95": 5.0},
    "drops": {},
    "restarts": 0,
    "outbox": {"unsent": 0, "oldest_s": 0},
    "soc_c": 50.5,
    "scene": "ok",
    "time_quality": "synced",
    "paused": False,
    "versions": {"edge": "1.0"},
    "unknown": "left out",
}


def test_the_fleet_is_what_each_device_said_last(tmp_path: Path) -> None:
    """A retained status is known at once; a will of an earlier connection does not cover a newer birth."""
    topic = "edge/v1/lobby/kiosk-1/{}"
    old, new = "1" * 32, "2" * 32
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        devices.send(topic.format("status"), status("online", old, "2026-11-21T10:00:00Z"), retain=True)
        with Process(tmp_path, broker.port) as process:

            def state() -> tuple[str | None, str | None]:
                with open_store(process.store, read_only=True) as store:
                    fleet = read_fleet(store.engine)
                return (fleet[0].state, fleet[0].boot_id) if fleet else (None, None)

            until(lambda: state() == ("online", old), "the retained one", process)
            devices.send(topic.format("status"), status("online", new, "2026-11-21T11:00:00Z"))
            until(lambda: state() == ("online", new), "the birth", process)
            devices.send(topic.format("status"), status("offline", old, "2026-11-21T10:00:00Z"))
            devices.send(topic.format("health"), HEALTH)
            until(lambda: process.ask("SELECT health_ms FROM fleet") != [(None,)], "health", process)
            assert state() == ("online", new), "the late will"
            devices.send(topic.format("status"), status("online", new, "2026-11-21T11:30:00Z"))  # connected again
            devices.send(topic.format("status"), status("offline", new, "2026-11-21T11:00:00Z"))
            devices.send(topic.format("status"), status("online", None, "2026-11-21T10:00:00Z"), retain=False)
            until(lambda: state() == ("online", None), "an online is always taken", process)
            devices.send(topic.format("status"), status("offline", None, "2026-11-21T10:00:00Z"))
            until(lambda: state() == ("offline", None), "its own will", process)
            devices.send(topic.format("status"), status("stopped", new, "2026-11-21T12:00:00Z"))
            until(lambda: state() == ("stopped", new), "an end", process)
            ((health,),) = process.ask("SELECT health FROM fleet")
            assert "left out" not in health
            assert json.loads(health)["soc_c"] == 50.5
            assert process.end() == 0


def test_several_subscribers_share_one_store(tmp_path: Path) -> None:
    """Each gets a part, under one name; one is killed: what it had not acknowledged goes to the other."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        share = ("--share", "figures")
        one = Process(tmp_path, broker.port, *share, name="one").start()
        two = Process(tmp_path, broker.port, *share, name="two").start()
        try:
            for device in range(10):
                devices.count(range(1, 31), device=f"kiosk-{device}")
            until(lambda: one.windows() == 300, "all", one)
            one.kill()
            devices.count(range(31, 61), device="kiosk-0")
            until(lambda: two.windows() == 330, "the other goes on", two)
            assert two.end() == 0
            assert "session new" in two.text
        finally:
            one.kill()
            two.kill()
        runs = {path.name.split("-")[1] for path in one.landing.rglob("*.jsonl")}
        assert len(runs) == 2, "both had a part"
        assert two.ask("SELECT COUNT(*) FROM gaps") == [(0,)]


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
        ca, _, _, *rest = tls_options(tmp_path)
        refused = Process(tmp_path, broker.port, ca, str(tmp_path / "stranger-ca.crt"), *rest[1:], name="refused")
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
            told = "times in a row: if another client is called aggregator too, each ends the other: give each its own"
            until(lambda: told in one.text, "the first says what it may be", one)
        assert one.end() == 0
    with FalseBroker({5: connack5(0) + b"\xe0\x02\x8e\x00"}) as other:
        two = Process(tmp_path, other.port, name="two").start(ready=False)
        told = "another client took this one's id: give each subscriber its own --client-id"
        until(lambda: told in two.text, "the other says what happened", two)
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


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a small tmpfs")
def test_a_full_disk_is_said_and_nothing_is_acknowledged_until_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=False).returncode:
        pytest.skip("this root may not mount")
    process = None
    try:
        with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
            process = Process(tmp_path, broker.port).start()
            devices.count(range(1, 3))
            until(lambda: process.windows() == 2, "counted", process)
            filler = folder / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            devices.count(range(3, 43))
            until(lambda: "the disk is full: make room; nothing is acknowledged" in process.text, "said", process)
            assert process.windows() == 2
            filler.unlink()
            until(lambda: process.windows() == 42, "goes on", process)
            assert process.end() == 0
            assert process.ask("SELECT SUM(duplicates) FROM windows") == [(0,)]
            assert unacknowledged(process, broker.port) == []
    finally:
        if process is not None:
            process.kill()
        subprocess.run(["umount", "-l", folder], check=True)


def test_one_that_leaves_a_group_in_order_takes_nothing_along(tmp_path: Path) -> None:
    """Ended under load: every message is in the store, without a replay."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        share = ("--share", "figures")
        one = Process(tmp_path, broker.port, *share, name="one").start()
        two = Process(tmp_path, broker.port, *share, name="two").start()
        try:
            sender = threading.Thread(target=devices.count, args=(range(1, 1001),))
            sender.start()
            until(lambda: one.windows() > 100, "under way", one)
            assert one.end() == 0
            sender.join()
            until(lambda: two.windows() == 1000, "all", two)
        finally:
            one.kill()
            two.kill()


HOLD = "from edge_aggregate import subscribe; subscribe.HOLD_S = 1.0"


def test_a_store_that_stays_away_leaves_the_messages_to_the_others(tmp_path: Path) -> None:
    """One of a group cannot commit: it hangs up, the other gets the rest, and what was landed is counted later."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        share = ("--share", "figures")
        stuck = Process(tmp_path, broker.port, *share, store=tmp_path / "stuck.db", name="stuck")
        stuck.start(environment=environment_with(tmp_path, HOLD))
        other = Process(tmp_path, broker.port, *share, name="other").start()
        held = sqlite3.connect(stuck.store, isolation_level=None)
        try:
            held.execute("BEGIN IMMEDIATE")
            for device in range(10):
                devices.count(range(1, 11), device=f"kiosk-{device}")
            until(lambda: "hanging up until it can" in stuck.text, "given up", stuck)
            devices.count(range(11, 21))
            held.execute("ROLLBACK")
            until(lambda: stuck.text.count("subscribed") == 2, "back", stuck)
            until(lambda: stuck.windows() + other.windows() == 110, "what it had landed, and what the other got", stuck)
            assert other.windows() >= 10
        finally:
            held.close()
            stuck.kill()
            other.kill()


def test_figures_for_prometheus(tmp_path: Path) -> None:
    port = free_port()
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        process = Process(tmp_path, broker.port, "--metrics-port", str(port))

        def figures() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                families = text_string_to_metric_families(answer.read().decode())
                return {
                    "/".join([sample.name.removeprefix("edge_aggregate_"), *sample.labels.values()]): sample.value
                    for family in families
                    for sample in family.samples
                }

        with process:
            line = window(1)
            devices.count(range(1, 11))
            devices.send(line["topic"], line["payload"])
            devices.send(line["topic"], line["payload"] | {"coverage": 0.5})
            devices.send(line["topic"], b"{")
            until(lambda: figures()["windows_total"] == 10 and figures()["unacknowledged"] == 0, "counted", process)
            until(lambda: figures()["dead_letters_total/payload"] == 1, "and refused", process)
            found = figures()
            assert found["messages_total"] == 13
            assert (found["duplicates_total"], found["conflicts_total"]) == (1, 1)
            assert found["commits_total"] >= 1
            assert found["connected"] == 1
            assert abs(time.time() - found["last_commit_time_seconds"]) < 600
            held = sqlite3.connect(process.store, isolation_level=None)
            held.execute("BEGIN IMMEDIATE")
            devices.count(range(11, 14))
            until(lambda: figures()["store_errors_total"] > 0, "a store that is held", process)
            assert figures()["unacknowledged"] == 3
            assert figures()["oldest_unacknowledged_seconds"] > 0
            held.execute("ROLLBACK")
            held.close()
            until(lambda: figures()["unacknowledged"] == 0, "free again", process)
        taken = Process(tmp_path, broker.port, "--metrics-port", str(broker.port), name="taken").start(ready=False)
        assert taken.wait() == 2
        assert "cannot be used (Address already in use): name another" in taken.text


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

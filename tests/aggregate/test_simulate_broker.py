"""`edge-aggregate simulate --broker`: a real Mosquitto, and a subscriber that finds what the truth says."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from edge_aggregate.check import Findings, check_log
from edge_aggregate.cli import main
from edge_aggregate.simulate.command import read_plan
from edge_aggregate.simulate.fleet import Fleet
from edge_aggregate.simulate.sender import Packed
from edge_aggregate.simulate.truth import Truth
from edge_aggregate.simulate.wire import stamp
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.contract import Health, ReplayAnswer, Status, cloudevents, decode, decode_counts
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_aggregate.simulate.plan import Plan

FLEET = (
    *("--devices", "6", "--sites", "2", "--minutes", "2880", "--start", "2026-11-01", "--seed", "11"),
    *("--hostile", ".2", "--conflicts", ".05", "--lost", ".1", "--duplicates", ".05", "--clock-errors", ".05"),
)

LATER_MS = 1_800_000_000_000

pytestmark = pytest.mark.aggregate


def plan_of(*options: str) -> Plan:
    """The plan of such a command line."""
    import argparse

    from edge_aggregate.simulate.command import add_parser

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return read_plan(parser.parse_args(["simulate", *options]))


def _said(message: mqtt.MQTTMessage, name: str) -> Any:  # noqa: ANN401 - whatever the property holds
    return getattr(message.properties, name, None)


class Subscriber:
    """Everything under edge/, in the order in which it came; the clock counts messages, so that no two are one."""

    def __init__(self, port: int) -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self.changed = threading.Condition()
        self._ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe("edge/#", options=SubscribeOptions(qos=1))
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.ReceiveMaximum = 65535
        self.client.connect("127.0.0.1", port, properties=asked)
        self.client.loop_start()
        assert self._ready.wait(60)

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def of(self, leaf: str) -> list[mqtt.MQTTMessage]:
        """All that came on topics with this end."""
        return [message for message in list(self.messages) if message.topic.endswith(leaf)]

    def wait_for(self, number: int, leaf: str) -> None:
        """Wait until so many came."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(leaf)) >= number, 120), len(self.of(leaf))

    def found(self, path: Path) -> Findings:
        """What `check` says of the log of it."""
        with path.open("w") as file:
            for number, message in enumerate(self.of("/counts")):
                try:
                    payload: object = bytes(message.payload).decode()
                except UnicodeDecodeError:
                    payload = {"base64": base64.b64encode(message.payload).decode()}
                entry = {"topic": message.topic, "received": stamp(LATER_MS + number), "payload": payload}
                file.write(json.dumps(entry) + "\n")
        return check_log(path)


@contextmanager
def subscribed(port: int) -> Iterator[Subscriber]:
    """A subscriber for a while."""
    subscriber = Subscriber(port)
    try:
        yield subscriber
    finally:
        subscriber.client.disconnect()
        subscriber.client.loop_stop()


@contextmanager
def simulating(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process."""
    program = "import sys; from edge_aggregate.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "simulate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@needs_mosquitto
def test_a_subscriber_counts_what_the_truth_says(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    with Mosquitto(tmp_path) as broker, subscribed(broker.port) as subscriber:
        assert main(["simulate", *FLEET, "--broker", f"127.0.0.1:{broker.port}", "--truth", str(truth)]) == 0
        totals: dict[str, Any] = json.loads(truth.read_text())
        subscriber.wait_for(totals["lines"], "/counts")
        found = subscriber.found(tmp_path / "log.jsonl")
    whole = totals["whole"]
    for name in ("windows", "duplicates", "conflicts", "missing"):
        assert getattr(found, name) == whole[name] > 0
    assert len(found.dead) + found.unlisted == totals["dead_letters"]["lines"] > 0
    counts = subscriber.of("/counts")
    properties = [dict(_said(m, "UserProperty") or []) for m in counts]
    assert all(m.qos == 1 and not m.retain for m in counts)
    said = 0
    for message, user in zip(counts, properties, strict=True):
        if user:
            assert user == dict(cloudevents(decode_counts(bytes(message.payload))))
            said += 1
    assert said == totals["lines"] - totals["dead_letters"]["lines"]


@needs_mosquitto
def test_devices_are_born_and_stop_and_say_how_they_are(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        with subscribed(broker.port) as subscriber:
            assert main(["simulate", *FLEET, "--restarts", "4", "--broker", f"127.0.0.1:{broker.port}"]) == 0
            subscriber.wait_for(100, "/counts")
            windows = [decode_counts(bytes(m.payload)) for m in subscriber.of("/counts") if _said(m, "UserProperty")]
            births = [decode(Status, bytes(m.payload)) for m in subscriber.of("/status")]
        announced = {b.boot_id for b in births if b.state == "online"}
        assert len(announced) > 6  # restarts too
        assert len(announced & {w.boot_id for w in windows}) > 6
        with subscribed(broker.port) as later:  # what is retained
            later.wait_for(6, "/status")
            later.wait_for(6, "/health")
            assert all(m.retain for m in later.messages)
            assert {decode(Status, bytes(m.payload)).state for m in later.of("/status")} == {"stopped"}
            assert all(decode(Health, bytes(m.payload)).rate for m in later.of("/health"))
            assert not later.of("/live")  # windows of long ago are nobody's last


@needs_mosquitto
def test_windows_of_this_hour_are_live_for_as_long_as_they_may(tmp_path: Path) -> None:
    options = ("--devices", "3", "--minutes", "180", "--faultless", "--seed", "2")
    with Mosquitto(tmp_path) as broker, subscribed(broker.port) as subscriber:
        assert main(["simulate", *options, "--broker", f"127.0.0.1:{broker.port}"]) == 0
        subscriber.wait_for(1, "/live")
        for message in subscriber.of("/live"):
            window = decode_counts(bytes(message.payload)).window
            assert 0 < _said(message, "MessageExpiryInterval") <= 2 * window.seconds


@needs_mosquitto
def test_gaps_can_be_closed_by_replay_but_for_what_is_gone(tmp_path: Path) -> None:
    plan, truth_file = plan_of(*FLEET, "--broker", "x"), tmp_path / "truth.json"
    truth = Truth(plan, {})
    expected = len(list(Fleet(plan, truth).messages()))
    whole = truth.end()["whole"]
    with Mosquitto(tmp_path) as broker, subscribed(broker.port) as subscriber:
        address = f"127.0.0.1:{broker.port}"
        with simulating(*FLEET, "--broker", address, "--stay", "600", "--truth", str(truth_file)) as process:
            subscriber.wait_for(expected, "/counts")
            before = subscriber.found(tmp_path / "before.jsonl")
            assert before.missing == whole["missing"]
            boots = {
                (m.topic, w.boot_id): w
                for m in subscriber.of("/counts")
                if _said(m, "UserProperty")
                for w in [decode_counts(bytes(m.payload))]
            }
            asked: list[str] = []
            for number, ((topic, boot_id), window) in enumerate(sorted(boots.items())):
                boots_before = [] if window.prev is None else [window.prev.boot_id]
                for boot in (boot_id, *boots_before):
                    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                    properties.ResponseTopic = f"edge/v1/{window.site}/{window.device}/reply/x"
                    properties.CorrelationData = b"%d" % len(asked)
                    command = {"id": f"r-{number}", "boot_id": boot, "from": 1, "to": 2**63 - 1}
                    replay = topic.replace("counts", "cmd/replay")
                    subscriber.client.publish(replay, json.dumps(command), qos=1, properties=properties)
                    asked.append(boot)
            subscriber.wait_for(len(asked), "/reply/x")
            answers = subscriber.of("/reply/x")
            after = subscriber.found(tmp_path / "after.jsonl")
            assert sum(decode(ReplayAnswer, bytes(m.payload)).sent for m in answers) >= before.windows
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
    assert "of them again" in out
    assert after.windows == whole["after_replay"]["windows"] > before.windows
    assert after.missing == whole["after_replay"]["missing"] < before.missing
    assert after.conflicts >= before.conflicts  # where a stranger was first, the true row is one
    assert json.loads(truth_file.read_text())["whole"] == whole


@needs_mosquitto
def test_a_rate_is_not_exceeded(tmp_path: Path) -> None:
    options = ("--devices", "5", "--minutes", "1440", "--faultless", "--rate", "100")
    with Mosquitto(tmp_path) as broker, subscribed(broker.port) as subscriber:
        begun = time.monotonic()
        assert main(["simulate", *options, "--broker", f"127.0.0.1:{broker.port}"]) == 0
        taken = time.monotonic() - begun
        subscriber.wait_for(61, "/counts")
        assert taken >= len(subscriber.of("/counts")) / 100 - 0.1 > 0.5


@needs_mosquitto
def test_under_tls_with_a_certificate(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "our ca")
    certificate(tmp_path, "server", "localhost", "ca")
    certificate(tmp_path, "fleet", "fleet", "ca")
    tls = [
        f"--tls-{name}={tmp_path / file}"
        for name, file in (("ca", "ca.crt"), ("cert", "fleet.crt"), ("key", "fleet.key"))
    ]
    port = free_port()
    with (
        Mosquitto(tmp_path, f"listener {port}\n{mutual_tls(tmp_path)}") as broker,
        subscribed(broker.port) as subscriber,
    ):
        options = ("--devices", "2", "--minutes", "240", "--faultless")
        assert main(["simulate", *options, "--broker", f"localhost:{port}", *tls]) == 0
        subscriber.wait_for(2, "/counts")


@needs_mosquitto
def test_messages_that_nobody_would_get_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "truth").mkdir()
    options = ("--broker", "--truth", str(tmp_path / "truth" / "t.json"))
    with Mosquitto(tmp_path) as broker:
        assert main(["simulate", *FLEET, options[0], f"127.0.0.1:{broker.port}", *options[1:]]) == 77
    assert not list((tmp_path / "truth").iterdir())  # no truth of what did not come
    assert "nobody is subscribed to edge/v1/site-000" in capsys.readouterr().err


def test_properties_are_packed_as_paho_packs_them() -> None:
    for user in ([("a", "b")], [("specversion", "1.0"), ("id", "ä" * 40), ("time", "x" * 300)]):
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/json"
        properties.UserProperty = user
        assert Packed(user).pack() == properties.pack()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--broker", f"127.0.0.1:{free_port()}"], 75, "cannot be reached"),
        (["--broker", "broker.example"], 2, "plain MQTT to broker.example is refused: give --tls-ca"),
        (["--broker", "mqtt://x"], 2, "is a URL: give HOST:PORT alone"),
        ([], 2, "give --out FOLDER for a log, or --broker HOST:PORT, and not both"),
        (["--broker", "localhost", "--out", "x"], 2, "and not both"),
        (["--broker", "localhost", "--root", "a/#"], 2, "--root 'a/#': has a wildcard or an empty level"),
        (["--out", "x", "--rate", "9"], 2, "--rate needs --broker"),
        (["--out", "x", "--live"], 2, "--live needs --broker"),
    ],
)
def test_brokers_that_are_none_are_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert main(["simulate", *FLEET, *options]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_fleet_in_real_time_waits_for_its_clock_and_ends_when_told() -> None:
    plan = plan_of("--devices", "4", "--minutes", "120", "--start", "2026-11-01", "--broker", "x", "--late", ".5")
    fleet = Fleet(plan, Truth(plan, {}))
    now, stop = [plan.start_ms], [False]
    stream = fleet.paced(lambda: now[0], lambda: stop[0], endless=True)
    came = 0
    for minute in range(0, 600, 5):
        now[0] = plan.start_ms + minute * 60_000
        while (message := next(stream)) is not None:
            assert message.received_ms <= now[0]
            came += 1
    assert came > 4 * 5  # beyond the plan's two hours
    stop[0] = True
    assert all(message is not None for message in stream)

"""Nothing committed is lost and nothing arrives twice by key, whatever broker or publisher go through."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest

from edge.commands.demo.subscriber import Broker
from edge.contract import PAYLOADS, ReplayCommand, decode, encode
from edge.errors import BrokerRefused
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_command, write_vision
from edge.publisher.session import open_session
from edge.types import Vote
from tests.support.appliance import DIGEST, closing, vision, vision_file
from tests.support.broker import FalseBroker, Mosquitto, connack5, connack311, free_port, needs_mosquitto
from tests.support.wire import Ear, Service, wait

BOOT = "a" * 32
COUNTS = "edge/v1/lobby/kiosk-07/counts"
DEVICE = "edge/v1/lobby/kiosk-07/#"
HAPPY = [Vote("unmasked", "happy")] * 3


def commit(folder: Path, number: int, boot_id: str = BOOT) -> None:
    """Let vision commit this many windows in a run of its own."""
    with vision(folder, boot_id) as outbox:
        for _ in range(number):
            outbox.commit(closing(HAPPY))


def unsent(folder: Path) -> int:
    """Rows the outbox still holds unsent."""
    with Outbox(folder / "outbox.db") as outbox:
        return outbox.stats().unsent


@needs_mosquitto
def test_what_is_sent_is_what_the_schema_says(tmp_path: Path, mosquitto: Mosquitto, schemas: Path) -> None:
    commit(tmp_path, 3)
    write_vision(tmp_path, vision_file())
    with Ear(mosquitto.port, DEVICE) as ear, Service(tmp_path, mosquitto.port) as service:
        wait(lambda: sum(ear.keys().values()) == 3 and any(m.topic.endswith("live") for m in ear.heard))
        assert service.stop() == 0
        wait(lambda: any(b'"stopped"' in m.payload for m in ear.heard))
    seen = set()
    for message in ear.heard:
        leaf = message.topic.rsplit("/", 1)[1]
        name = "counts" if leaf == "live" else leaf
        seen.add(leaf)
        body = json.loads(message.payload)
        jsonschema.validate(body, json.loads((schemas / f"{name}.schema.json").read_text()))
        assert PAYLOADS[name].model_validate_json(message.payload), "an undeclared field was sent"
        assert encode(decode(PAYLOADS[name], message.payload)) == message.payload
    assert seen == {"status", "health", "counts", "live"}
    assert list(ear.keys().values()) == [1, 1, 1]
    assert ear.counts()[0].counts.unmasked.happy == 3
    assert ear.counts()[0].models.gate == DIGEST


@needs_mosquitto
def test_a_file_that_vision_cannot_write_is_let_go_of(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Held open, it would be in the way of whoever unmounts and repairs its filesystem."""
    commit(tmp_path, 1)
    write_vision(tmp_path, vision_file())
    with Ear(mosquitto.port, DEVICE) as ear, Service(tmp_path, mosquitto.port) as service:

        def held() -> bool:
            files = Path(f"/proc/{service.process.pid}/fd").iterdir()
            for file in files:
                with suppress(OSError):  # closed since
                    if file.readlink().name == "outbox.db":
                        return True
            return False

        def troubles() -> list[str | None]:
            return [json.loads(m.payload)["trouble"] for m in ear.heard if m.topic.endswith("/status")]

        wait(lambda: sum(ear.keys().values()) == 1 and held())
        write_vision(tmp_path, vision_file().model_copy(update={"trouble": "failing"}))
        wait(lambda: troubles()[-1] == "failing" and not held())
        commit(tmp_path, 1, "b" * 32)
        write_vision(tmp_path, vision_file())
        wait(lambda: sum(ear.keys().values()) == 2 and troubles()[-1] is None and held())
        assert service.stop() == 0


@needs_mosquitto
def test_broker_killed_and_restarted_every_window_once(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        vision(tmp_path) as outbox,
        Ear(broker.port, COUNTS) as ear,
        Service(tmp_path, broker.port, "--retry", "1") as service,
    ):
        for _ in range(10):
            outbox.commit(closing(HAPPY))
        wait(lambda: len(ear.keys()) == 10)
        broker.kill()
        for _ in range(60):
            outbox.commit(closing(HAPPY))
        service.wait_for("no-broker")
        broker.start()
        wait(lambda: len(ear.keys()) == 70, 60, service.lines)
        service.process.kill()  # its memory of what is in flight goes too
        outbox.commit(closing(HAPPY))
        with Service(tmp_path, broker.port) as again:
            wait(lambda: len(ear.keys()) == 71, 60, again.lines)
            wait(lambda: unsent(tmp_path) == 0)
            assert again.stop() == 0
    assert sorted(seq for _, seq in ear.keys()) == list(range(1, 72))  # noqa: SIM118 - a Counter by method


@needs_mosquitto
def test_without_a_subscriber_rows_are_kept_and_retried(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 5)
    with Service(tmp_path, mosquitto.port, "--retry", "2") as service:
        service.wait_for("no-subscriber")
        assert unsent(tmp_path) == 5
        with Ear(mosquitto.port, COUNTS) as ear:
            wait(lambda: len(ear.keys()) == 5, 30, service.lines)
            wait(lambda: unsent(tmp_path) == 0)
        assert service.stop() == 0


@needs_mosquitto
def test_denied_by_acl_rows_are_kept_with_an_alarm(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite edge/v1/+/+/status\ntopic read #\n")
    commit(tmp_path, 2)
    with (
        Mosquitto(tmp_path, f"acl_file {acl}") as broker,
        Service(tmp_path, broker.port, "--retry", "1") as service,
    ):
        service.wait_for("event=alarm code=0x87")
        assert unsent(tmp_path) == 2
        acl.write_text("topic readwrite #\n")
        broker.signal(signal.SIGHUP)
        with Ear(broker.port, COUNTS) as ear:
            wait(lambda: len(ear.keys()) == 2, 30, service.lines)
        assert service.stop() == 0


@needs_mosquitto
def test_status_birth_will_and_farewell(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 1)
    topic = "edge/v1/lobby/kiosk-07/status"

    def states(ear: Ear) -> list[str]:
        return [json.loads(m.payload)["state"] for m in ear.heard]

    with Ear(mosquitto.port, topic) as ear:
        with Service(tmp_path, mosquitto.port) as service:
            wait(lambda: states(ear) == ["online"], 30, service.lines)
            service.process.kill()
            wait(lambda: states(ear) == ["online", "offline"])
        with Service(tmp_path, mosquitto.port) as service:
            wait(lambda: states(ear)[2:] == ["online"], 30, service.lines)
            commit(tmp_path, 1, "b" * 32)  # vision starts anew: birth and will carry the new boot_id
            wait(lambda: json.loads(ear.heard[-1].payload)["boot_id"] == "b" * 32, 30, service.lines)
            assert service.stop() == 0
            wait(lambda: states(ear)[-1] == "stopped")
        # A late will is covered again by a publisher that is there.
    with Service(tmp_path, mosquitto.port) as service:
        service.wait_for("event=connected")
        late = open_session(Broker("127.0.0.1", mosquitto.port), "late", will=None)
        wait(lambda: retained(mosquitto.port, topic)["state"] == "online")
        late.publish(topic, encode_offline(), retain=True)
        late.step(0.5)
        service.wait_for("status-covered")
        wait(lambda: retained(mosquitto.port, topic)["state"] == "online")
        late.close()


def encode_offline() -> bytes:
    """A will of an older connection."""
    return json.dumps({"state": "offline", "boot_id": BOOT, "version": "0", "since": "2026-11-21T00:00:00Z"}).encode()


def retained(port: int, topic: str) -> dict[str, str]:
    """The retained message of a topic, or {"state": ""}."""
    with Ear(port, topic) as ear:
        end = time.monotonic() + 2
        while not ear.heard and time.monotonic() < end:
            time.sleep(0.02)
        found: dict[str, str] = json.loads(ear.heard[0].payload) if ear.heard else {"state": ""}
        return found


@needs_mosquitto
def test_commands_replay_and_pause(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 4)
    reply = "answers/here"
    with Ear(mosquitto.port, COUNTS, reply) as ear, Service(tmp_path, mosquitto.port) as service:
        wait(lambda: len(ear.keys()) == 4, 30, service.lines)
        wait(lambda: unsent(tmp_path) == 0)
        before = {m.payload for m in ear.heard}
        asker = open_session(Broker("127.0.0.1", mosquitto.port), "asker")
        command = ReplayCommand(id="r-1", boot_id=BOOT, from_=3, to=9)
        asker.publish("edge/v1/lobby/kiosk-07/cmd/replay", encode(command), correlation=b"c-1", response_topic=reply)
        asker.publish("edge/v1/lobby/kiosk-07/cmd/pause", b"")
        asker.step(0.5)
        wait(lambda: any(m.topic == reply for m in ear.heard), 30, service.lines)
        answer = next(m for m in ear.heard if m.topic == reply)
        assert json.loads(answer.payload) == {"id": "r-1", "sent": 2, "gone": 5}
        assert answer.correlation == b"c-1"
        assert {m.payload for m in ear.heard if m.topic == COUNTS} == before, "a replayed row has changed"
        assert ear.keys() == {(BOOT, 1): 1, (BOOT, 2): 1, (BOOT, 3): 2, (BOOT, 4): 2}
        wait(lambda: (read_command(tmp_path) or vision_file()).paused)
        asker.publish("edge/v1/lobby/kiosk-07/cmd/replay", b"no json")
        asker.step(0.2)
        service.wait_for("replay-refused")
        asker.close()
        assert service.stop() == 0


@needs_mosquitto
def test_sigterm_while_the_broker_hangs(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 60)
    with Service(tmp_path, mosquitto.port) as service:
        service.wait_for("event=connected")
        mosquitto.signal(signal.SIGSTOP)
        try:
            assert service.stop() == 0
        finally:
            mosquitto.signal(signal.SIGCONT)
    with FalseBroker({5: None, 4: None}) as silent, Service(tmp_path, silent.port) as service:
        wait(lambda: bool(silent.asked))
        assert service.stop() == 0


@needs_mosquitto
def test_lifeline_drains_or_gives_up_with_the_rows_kept(tmp_path: Path) -> None:
    commit(tmp_path, 120)
    with Service(tmp_path, free_port(), "--lifeline", "2") as service:
        assert service.process.stdin is not None
        service.process.stdin.close()
        assert service.process.wait(30) == 75
        assert unsent(tmp_path) == 120
    with Mosquitto(tmp_path) as broker, Ear(broker.port, COUNTS) as ear:
        with Service(tmp_path, broker.port, "--lifeline", "30") as service:
            assert service.process.stdin is not None
            service.process.stdin.close()
            assert service.process.wait(40) == 0, service.lines()
        wait(lambda: len(ear.keys()) == 120)


def test_a_broker_that_says_no_is_another_exit_code_than_one_that_is_away(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    with FalseBroker({5: connack5(0x86)}) as broker, Service(tmp_path, broker.port, "--lifeline", "10") as service:
        assert service.process.stdin is not None
        service.process.stdin.close()
        assert service.process.wait(30) == BrokerRefused.exit_code
    assert unsent(tmp_path) == 1


@needs_mosquitto
def test_a_pause_outlives_a_power_cut(tmp_path: Path, mosquitto: Mosquitto) -> None:
    commit(tmp_path, 1)

    def ask(command: str, *, paused: bool) -> None:
        asker = open_session(Broker("127.0.0.1", mosquitto.port), "asker")
        asker.publish(f"edge/v1/lobby/kiosk-07/cmd/{command}", b"")
        while not asker.acks:
            asker.step(0.1)
        asker.close()
        wait(lambda: (now := read_command(tmp_path)) is not None and (now.command, now.paused) == (command, paused))

    with Service(tmp_path, mosquitto.port) as service:
        service.wait_for("event=connected")
        ask("pause", paused=True)
        wait(lambda: remembered(tmp_path))
    (tmp_path / "command.json").unlink()  # the runtime folder is a tmpfs
    with Service(tmp_path, mosquitto.port) as service:
        wait(lambda: (now := read_command(tmp_path)) is not None and now.paused, 30, service.lines)
        wait(lambda: service.lines().count("event=connected") == 2)
        ask("identify", paused=True)
        ask("resume", paused=False)
        wait(lambda: not remembered(tmp_path))


def remembered(folder: Path) -> bool:
    """Whether the outbox knows of a pause."""
    with Outbox(folder / "outbox.db") as outbox:
        return outbox.paused


@needs_mosquitto
def test_starts_before_the_outbox_and_follows_a_new_one(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Ear(mosquitto.port, COUNTS) as ear, Service(tmp_path, mosquitto.port) as service:
        service.wait_for("event=connected")
        commit(tmp_path, 2)
        wait(lambda: len(ear.keys()) == 2, 30, service.lines)
        (tmp_path / "outbox.db").write_bytes(b"this is no database" * 500)
        (tmp_path / "outbox.db-wal").unlink(missing_ok=True)
        (tmp_path / "outbox.db-shm").unlink(missing_ok=True)
        commit(tmp_path, 1, "b" * 32)
        wait(lambda: ear.keys()["b" * 32, 1] == 1, 30, service.lines)
        assert service.stop() == 0
    assert (tmp_path / "outbox.db.damaged-1").exists()


@needs_mosquitto
def test_falls_back_to_3_1_1_and_says_so(tmp_path: Path) -> None:
    """A broker that refuses MQTT 5: in front of a Mosquitto stands one that answers CONNACK 0x01 to it."""
    commit(tmp_path, 1)
    with FalseBroker({5: connack311(1), 4: connack311(0)}) as old, Service(tmp_path, old.port) as service:
        service.wait_for("event=mqtt-3.1.1")
        assert old.asked == [5, 4]
        assert service.stop() == 0
    assert unsent(tmp_path) == 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({5: connack5(0x86)}, "0x86, bad user name"),
        ({5: connack5(0x88)}, "0x88, server unavailable"),
        ({5: connack311(1), 4: connack311(5)}, "0x87, not authorised"),
        ({}, "hung up"),
        ({5: b"\xff" * 64, 4: b"\xff" * 64}, "must speak MQTT"),
    ],
)
def test_service_survives_refusals(tmp_path: Path, answers: dict[int, bytes | None], words: str) -> None:
    commit(tmp_path, 1)
    with FalseBroker(answers) as broker, Service(tmp_path, broker.port) as service:
        service.wait_for(words)
        wait(lambda: broker.asked.count(5) >= 2, 30, service.lines)
        assert service.stop() == 0
    assert unsent(tmp_path) == 1

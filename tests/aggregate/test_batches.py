"""What a subscriber has is landed, committed, then acknowledged: nothing lost, nothing doubled, whatever ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.decode import milliseconds
from edge_aggregate.store import open_store
from edge_aggregate.store.fleet import read_fleet
from prometheus_client.parser import text_string_to_metric_families

from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.subscriber import Devices, Process, environment_with, unacknowledged, until
from tests.support.windows import HEALTH, window

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.aggregate, needs_mosquitto]

CRASH = """
import os, signal, sys
from edge_aggregate.store.store import Store
Store.merge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
HOLD = "from edge_aggregate import batches; batches.HOLD_S = 1.0"


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
        assert unacknowledged(process, broker) == []
    lines = [json.loads(text) for path in sorted(process.landing.rglob("*.jsonl")) for text in path.open()]
    assert len(lines) == 302
    assert lines[0]["payload"]["seq"] == 1


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
        assert len(unacknowledged(process, broker, 10)) == 10
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
        assert unacknowledged(process, broker) == []


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
            until(lambda: broker.ended("aggregator"), "the broker sees that it has hung up", stuck)
            devices.count(range(11, 21))
            held.execute("ROLLBACK")
            until(lambda: stuck.text.count("subscribed") == 2, "back", stuck)
            until(lambda: stuck.windows() + other.windows() == 110, "what it had landed, and what the other got", stuck)
            assert other.windows() >= 10
        finally:
            held.close()
            stuck.kill()
            other.kill()


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
            assert unacknowledged(process, broker) == []
    finally:
        if process is not None:
            process.kill()
        subprocess.run(["umount", "-l", folder], check=True)


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
        assert unacknowledged(process, broker) == []


def status(state: str, boot: str | None, since: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    return {"state": state, "boot_id": boot, "version": "1.0", "since": since, **more}


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
            devices.send(topic.format("health"), {**HEALTH, "unknown": "left out"})
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


def test_what_is_retained_does_not_renew_when_a_device_was_heard_of(tmp_path: Path) -> None:
    """A broker says it at each connection: a device that is gone would never fall silent."""
    topic, since = "edge/v1/lobby/kiosk-1/{}", "2020-06-01T00:00:00Z"

    def say(devices: Devices, state: str, soc_c: float) -> None:
        devices.send(topic.format("status"), status(state, "1" * 32, since), retain=True)
        devices.send(topic.format("health"), {**HEALTH, "soc_c": soc_c}, retain=True)

    def times(process: Process, state: str, soc_c: float) -> tuple[int, int]:
        """When both were heard of, once this is known."""
        said = "SELECT state, json_extract(health, '$.soc_c') FROM fleet"
        until(lambda: process.ask(said) == [(state, soc_c)], f"{state}, {soc_c}", process)
        ((of_status, of_health),) = process.ask("SELECT status_ms, health_ms FROM fleet")
        return of_status, of_health

    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        say(devices, "online", 40.0)
        with Process(tmp_path, broker.port) as process:
            began = milliseconds(datetime.fromisoformat(since))
            assert times(process, "online", 40.0) == (began, 0), "nothing is known but when it had begun"
            say(devices, "online", 45.0)
            heard = times(process, "online", 45.0)
            assert min(heard) > began
            assert process.end() == 0
            say(devices, "stopped", 50.0)
            process.start()
            assert times(process, "stopped", 50.0) == heard, "what it said while nobody listened, and not when"
            assert process.end() == 0


def test_of_a_kiosk_that_was_moved_its_new_site_is_shown_whatever_the_broker_keeps_of_the_old(tmp_path: Path) -> None:
    """Old topics stay retained, and come again at each connection, before the new one's or after it."""
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices:
        for site, boot, since, state in (
            ("attic", "1" * 32, "2026-11-21T10:00:00Z", "stopped"),
            ("lobby", "3" * 32, "2026-11-21T12:00:00Z", "online"),
            ("zoo", "2" * 32, "2026-11-21T11:00:00Z", "stopped"),
        ):
            devices.send(f"edge/v1/{site}/kiosk-1/status", status(state, boot, since), retain=True)
            devices.send(f"edge/v1/{site}/kiosk-1/health", {**HEALTH, "boot_id": boot}, retain=True)
        process = Process(tmp_path, broker.port)
        for _ in range(2):
            process.start()
            devices.send("edge/v1/lobby/kiosk-9/health", HEALTH)  # live, and after all that was retained
            until(lambda: process.ask("SELECT 1 FROM fleet WHERE device = 'kiosk-9'"), "all has come", process)
            found = process.ask(
                "SELECT site, state, json_extract(health, '$.boot_id') FROM fleet WHERE device = 'kiosk-1'"
            )
            assert found == [("lobby", "online", "3" * 32)]
            assert process.end() == 0
            with open_store(process.store) as store:
                store.engine.run("DELETE FROM fleet WHERE device = 'kiosk-9'")


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
            counted = {"messages_total": 13, "dead_letters_total/payload": 1, "unacknowledged": 0}
            until(lambda: counted.items() <= figures().items(), "counted and refused", process)
            found = figures()
            assert found["windows_total"] == 10
            assert (found["duplicates_total"], found["conflicts_total"]) == (1, 1)
            assert found["commits_total"] >= 1
            assert found["connected"] == 1
            assert abs(time.time() - found["last_commit_time_seconds"]) < 600
            held = sqlite3.connect(process.store, isolation_level=None)
            held.execute("BEGIN IMMEDIATE")
            devices.count(range(11, 14))
            until(lambda: figures()["store_errors_total"] > 0, "a store that is held", process)
            until(lambda: figures()["unacknowledged"] == 3, "they wait", process)
            assert figures()["oldest_unacknowledged_seconds"] > 0
            held.execute("ROLLBACK")
            held.close()
            until(lambda: figures()["unacknowledged"] == 0, "free again", process)
        taken = Process(tmp_path, broker.port, "--metrics-port", str(broker.port), name="taken").start(ready=False)
        assert taken.wait() == 2
        assert "cannot be used (Address already in use): name another" in taken.text

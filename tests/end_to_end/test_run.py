"""The real appliance as processes: real clips or the demo's, real models, a real broker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge.commands.demo.clip import compose
from edge.outbox.outbox import Outbox
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.processes import alive

REPO = Path(__file__).resolve().parents[2]
PATIENCE_S = 900
"""What takes longer hangs; a starved machine may need minutes."""

CONFIG = """[device]
id = "kiosk-07"
site = "lobby"
purpose = "test"
mode = "development"
[camera]
kind = "replay"
source = '{source}'
loop = {loop}
[detector]
rotations = [0]
[models]
bundle = '{bundle}'
[window]
seconds = {seconds}
[privacy]
noise = "off"
min_count = 1
[mqtt]
host = "127.0.0.1"
port = {port}
[storage]
outbox = "outbox.db"
runtime = "run"
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clip: two portraits, one also masked."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    compose(path)
    return path


def configure(folder: Path, source: Path, bundle: Path, port: int, *, loop: bool = False, seconds: float = 10) -> Path:
    path = folder / "config.toml"
    path.write_text(CONFIG.format(source=source, loop=str(loop).lower(), bundle=bundle, seconds=seconds, port=port))
    return path


def edge(*args: object) -> subprocess.Popen[bytes]:
    """Start `edge …` from this tree."""
    return subprocess.Popen([sys.executable, "-m", "edge", *map(str, args)], cwd=REPO, stderr=subprocess.DEVNULL)


SUBSCRIBE = """
import sys
from edge.contract import encode
from edge.commands.demo.subscriber import Broker, counts
for payload in counts(Broker("127.0.0.1", int(sys.argv[1])), subscribed=lambda: print("ready", flush=True)):
    print(encode(payload).decode(), flush=True)
"""


class Subscriber:
    """A subscriber in a process of its own, its messages in a file."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "received.jsonl"
        with self.path.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SUBSCRIBE, str(port)], stdout=out, stderr=subprocess.DEVNULL, cwd=REPO
            )
        until(lambda: self.path.stat().st_size > 0)

    def keys(self) -> list[tuple[str, int]]:
        """(boot_id, seq) of each message, in order of arrival."""
        lines = [line for line in self.path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [(m["boot_id"], m["seq"]) for m in map(json.loads, lines)]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def until(what: object, seconds: float = PATIENCE_S) -> None:
    """Wait for a condition; a generous limit, since nothing here is about speed."""
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def committed(folder: Path) -> set[tuple[str, int]]:
    """Keys of every row the outbox holds."""
    with closing(Outbox(folder / "outbox.db")) as outbox:
        rows = outbox._db.execute("SELECT boot_id, seq FROM rows").fetchall()
    return {(str(boot), int(seq)) for boot, seq in rows}


def children(process: subprocess.Popen[bytes]) -> set[str]:
    """Which services a supervisor has started."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids]
    return {service for service in ("publish", "vision") for line in lines if service.encode() in line}


def test_a_stop_before_the_services_listen_is_an_orderly_one(tmp_path: Path, clip: Path, bundle_folder: Path) -> None:
    run = edge("run", "--config", configure(tmp_path, clip, bundle_folder, free_port()))
    until(lambda: children(run) == {"publish", "vision"})
    run.send_signal(signal.SIGTERM)
    assert run.wait(PATIENCE_S) == 0


@needs_mosquitto
def test_a_clip_becomes_counts_at_a_broker(tmp_path: Path, clip: Path, bundle_folder: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        subscriber = Subscriber(tmp_path, broker.port)
        try:
            run = edge("run", "--config", configure(tmp_path, clip, bundle_folder, broker.port))
            assert run.wait(PATIENCE_S) == 0
            until(lambda: len(set(subscriber.keys())) == 4)
        finally:
            subscriber.close()
        assert [seq for _, seq in dict.fromkeys(subscriber.keys())] == [1, 2, 3, 4]
    messages = [json.loads(line) for line in subscriber.path.read_text().splitlines() if line.startswith("{")]
    votes = {m["seq"]: m["visitors"] for m in messages}
    assert all(1 <= n <= 4 for n in votes.values()), votes
    rows = {route: sum(v for m in messages for v in m["counts"][route].values()) for route in ("unmasked", "masked")}
    assert rows["unmasked"] > 0
    assert rows["masked"] > 0, "nobody went through the masked route"


@needs_mosquitto
def test_every_window_arrives_once_through_a_broker_crash(tmp_path: Path, clip: Path, bundle_folder: Path) -> None:
    port = free_port()
    broker = Mosquitto(tmp_path, port=port).start()
    subscriber = Subscriber(tmp_path, port)
    config = configure(tmp_path, clip, bundle_folder, port, loop=True, seconds=2)
    run = edge("run", "--config", config)
    try:
        until(lambda: len(set(subscriber.keys())) >= 2)
        broker.signal(signal.SIGKILL)
        broker.kill()
        before = len(committed(tmp_path))
        until(lambda: len(committed(tmp_path)) >= before + 2)
        broker = Mosquitto(tmp_path, port=port).start()
        until(lambda: len(set(subscriber.keys())) >= before + 2)
        run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE_S) == 0
        publisher = edge("publish", "--config", config)
        until(lambda: committed(tmp_path) <= set(subscriber.keys()))
        publisher.send_signal(signal.SIGTERM)  # perhaps before it has a handler, if the run sent the last one itself
        assert publisher.wait(PATIENCE_S) in {0, -signal.SIGTERM}
        assert set(subscriber.keys()) == committed(tmp_path)
    finally:
        run.kill()
        broker.kill()
        subscriber.close()


def test_without_a_broker_the_rows_are_kept(tmp_path: Path, bundle_folder: Path) -> None:
    portrait = REPO / "edge" / "demo_material" / "astronaut.png"
    config = configure(tmp_path, portrait, bundle_folder, free_port())
    assert edge("run", "--config", config, "--drain-timeout", "1").wait(PATIENCE_S) == 75
    assert len(committed(tmp_path)) == 1


def test_sigterm_commits_the_partial_window(tmp_path: Path, clip: Path, bundle_folder: Path) -> None:
    config = configure(tmp_path, clip, bundle_folder, free_port(), loop=True, seconds=3600)
    vision = edge("vision", "--config", config)
    seen = tmp_path / "run" / "vision.json"
    until(lambda: seen.exists() and json.loads(seen.read_text())["development"]["frames"] > 5)
    assert not committed(tmp_path)
    vision.send_signal(signal.SIGTERM)
    assert vision.wait(PATIENCE_S) == 0
    assert len(committed(tmp_path)) == 1


def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path, clip: Path, bundle_folder: Path) -> None:
    config = configure(tmp_path, clip, bundle_folder, free_port(), loop=True)
    run = edge("run", "--config", config, "--drain-timeout", "1")
    until((tmp_path / "run" / "vision.json").exists)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) == 2
    run.kill()
    run.wait()
    until(lambda: not any(alive(int(child)) for child in children), 120)


def test_the_demo_prints_counts_and_ends(bundle_folder: Path) -> None:
    assert bundle_folder.exists()
    done = subprocess.run(
        [sys.executable, "-m", "edge", "demo"], cwd=REPO, capture_output=True, timeout=PATIENCE_S, check=False
    )
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert done.returncode == 0, done.stderr.decode()
    assert len(lines) >= 3
    assert {line["schema"] for line in lines} == {"edge.counts/1"}
    assert b"EXACT counts" in done.stderr


def test_the_demo_falls_back_to_mqtt_3_1_1(tmp_path: Path, bundle_folder: Path) -> None:
    pytest.importorskip("amqtt", reason="comes with the extra: .venv/bin/pip install -e '.[demo]'")
    assert bundle_folder.exists()
    for i in range(4):
        shutil.copy(REPO / "edge" / "demo_material" / "astronaut.png", tmp_path / f"{i}.png")
    done = subprocess.run(
        [sys.executable, "-m", "edge", "demo", "--broker", "amqtt", "--source", str(tmp_path)],
        cwd=REPO, env={**os.environ, "DEMO_WINDOW": "1"}, capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert [line["visitors"] for line in lines] == [1, 1, 1, 1]
    assert "amqtt (MQTT 3.1.1 only)" in said
    assert "event=mqtt-3.1.1" in said, "the fallback must say so"

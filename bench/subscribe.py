"""The subscriber beside a bare paho client on one broker: `python bench/subscribe.py [--messages N] [--rounds N]`.

1. Both drain the same queue, one after the other, round by round: messages a second, and the ratio.
2. 1,000 messages a second: from publish to commit.
3. A month of 200 devices through one process: its memory.

Prints a page for bench/subscribe.md. Needs Mosquitto.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import paho.mqtt.client as mqtt
from edge_aggregate.batches import Batches
from edge_aggregate.broker import Broker
from edge_aggregate.connection import Connection
from edge_aggregate.landing import Landing
from edge_aggregate.store import open_store
from edge_aggregate.subscribe import Options, Subscriber
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.types import CELLS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_aggregate.metrics import Figures
    from edge_aggregate.store import Store

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
DEVICES: Final = 200
RATE: Final = 1000
SECONDS: Final = 20


def message(number: int, devices: int = DEVICES) -> tuple[str, str]:
    """Topic and payload of the nth window of a fleet: hour by hour, device by device."""
    hour, device = divmod(number, devices)
    name, rng = f"kiosk-{device:03}", random.Random(number)  # noqa: S311 - no secret
    table = {r: {c: rng.choice([None, rng.randrange(10, 60)]) for c in CELLS} for r in ROUTES}
    released = [value for row in table.values() for value in row.values() if value is not None]
    payload = {
        "schema": "edge.counts/1",
        "site": f"site-{device % 20}",
        "device": name,
        "boot_id": f"{device:032x}",
        "seq": hour + 1,
        "prev": None,
        "counts": table,
        "visitors": sum(released),
        "coverage": 0.98,
        "scene": "ok",
        "window": {
            "start": (START + timedelta(hours=hour)).isoformat(),
            "seconds": 3600,
            "time_quality": "synced",
        },
        "suppressed_cells": 16 - len(released),
        "privacy": {
            "mechanism": "discrete-laplace",
            "epsilon": 1.0,
            "min_count": 10,
            "unit": "one class per track per window",
        },
        "models": {
            role: "sha256:" + digit * 64 for role, digit in (("gate", "1"), ("fer_unmasked", "2"), ("fer_masked", "3"))
        }
        | {"route": "gate"},
        "flush": False,
        "noise_draws": {r: {c: 0 if value is None else 3 for c, value in row.items()} for r, row in table.items()},
    }
    return f"edge/v1/site-{device % 20}/{name}/counts", json.dumps(payload, separators=(",", ":"))


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A broker on a free port."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        sys.exit("no mosquitto: apt-get install mosquitto")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\nmax_inflight_messages 0\n"
    )
    folder.chmod(0o755)
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def publish(port: int, first: int, count: int, rate: float = 0.0) -> list[float]:
    """Publish `count` messages from the nth on; when each was. In a process of its own by `--play`."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    times, begin, info = [], time.time(), None
    for number in range(count):
        topic, payload = message(first + number)
        if rate and (ahead := begin + number / rate - time.time()) > 0:
            time.sleep(ahead)
        times.append(time.time())
        events = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        events.ContentType = "application/json"
        events.UserProperty = [
            ("specversion", "1.0"),
            ("id", f"{number:032x}/1"),
            ("source", "/site-1/kiosk-001"),
            ("type", "edge.counts.v1"),
            ("time", "2026-03-02T00:00:00Z"),
        ]
        info = client.publish(topic, payload, qos=1, properties=events)
        if number % 2000 == 1999:
            info.wait_for_publish(60)
    if info is not None:
        info.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()
    return times


def session(port: int, name: str) -> None:
    """Begin one that the broker keeps, with a subscription to counts."""
    connection = Connection(Broker("127.0.0.1", port), name, keep_s=3600, receive=10, on_message=lambda _: None)
    connection.open()
    number = connection.subscribe(("edge/v1/+/+/counts", 1))
    while number not in connection.granted:
        connection.step(0.1)
    connection.close()


def bare(port: int, count: int) -> tuple[float, float]:
    """Seconds, and of a core, in which a paho client that does nothing with them takes so many."""
    asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    asked.ReceiveMaximum, asked.SessionExpiryInterval = 10_000, 3600
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=MQTTProtocolVersion.MQTTv5)
    taken = 0

    def take(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == count:
            client.disconnect()

    client.on_message = take
    begin, used = time.perf_counter(), time.process_time()
    client.connect("127.0.0.1", port, clean_start=False, properties=asked)
    client.loop_forever()
    return time.perf_counter() - begin, time.process_time() - used


class Timed(Batches):
    """They remember when each window was committed, and what memory was taken every 20,000."""

    def __init__(self, options: Options, open_: Callable[[], Store], figures: Figures) -> None:
        landing = Landing(options.landing, options.client_id)
        super().__init__(landing, open_, figures, batch=options.batch, every=options.every)
        self.committed: dict[str, float] = {}
        self.end = 0.0
        self.memory: list[int] = []
        self._next = 0

    def _commit(self) -> bool:
        rows = [row for segment in self._pending for _, row in segment.batch.rows]
        done = super()._commit()
        self.end = time.perf_counter()
        now = time.time()
        if done and len(self.committed) < 100_000:
            self.committed |= {f"{row.device}/{row.seq}": now for row in rows}
        if self._figures.windows >= self._next:
            self._next += 20_000
            self.memory.append(_resident())
        return done


class Measured(Subscriber):
    """One that ends after so many windows."""

    def __init__(self, port: int, folder: Path, count: int) -> None:
        options = Options(str(folder / "store.db"), folder / "landing", "aggregator")

        def open_() -> Store:
            return open_store(options.store, create=True)

        super().__init__(Broker("127.0.0.1", port), options, open_, lambda: self.figures.windows >= count)
        self.batches = self.timed = Timed(options, open_, self.figures)


def _resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def part(arguments: argparse.Namespace) -> None:
    """What runs in a process of its own; one line of JSON."""
    found: Any
    if arguments.part == "bare":
        found = bare(arguments.port, arguments.messages)
    elif arguments.part == "publish":
        found = publish(arguments.port, arguments.first, arguments.messages, arguments.rate)
    else:
        subscriber = Measured(arguments.port, arguments.folder, arguments.messages)
        begin, used = time.perf_counter(), time.process_time()
        subscriber.run()
        timed = subscriber.timed
        found = {"took": (timed.end - begin, time.process_time() - used), "memory": timed.memory}
        if arguments.times:
            found["committed"] = timed.committed
    print(json.dumps(found))


def start(name: str, port: int, folder: Path, messages: int, *more: str) -> subprocess.Popen[str]:
    """A part."""
    command = [sys.executable, __file__, "--part", name, "--port", str(port), "--folder", str(folder)]
    return subprocess.Popen([*command, "--messages", str(messages), *more], stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Any:  # noqa: ANN401 - what it printed
    """What it found."""
    out, _ = process.communicate()
    return json.loads(out.splitlines()[-1])


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--month", type=int, default=DEVICES * 24 * 30, help="windows of the month")
    parser.add_argument("--part", choices=["bare", "ours", "publish"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    if arguments.part:
        part(arguments)
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with mosquitto(folder) as port:
            _drain(port, folder, arguments)
        print("\n| what | measured |\n|---|---|")
        with mosquitto(folder) as port:
            _latency(port, folder)
        with mosquitto(folder) as port:
            _month(port, folder, arguments.month)


def _drain(port: int, folder: Path, arguments: argparse.Namespace) -> None:
    count = arguments.messages
    theirs, ours = [], []
    for number in range(arguments.rounds):
        place = folder / f"drain-{number}"
        place.mkdir()
        for name in ("bare", "aggregator"):
            session(port, name)
        result(start("publish", port, place, count, "--first", str(number * count)))
        theirs.append([count / seconds for seconds in result(start("bare", port, place, count))])
        ours.append([count / seconds for seconds in result(start("ours", port, place, count))["took"]])
    print(
        f"| a queue of {count} messages, median of {arguments.rounds} rounds | bare paho, nothing kept | ours | ratio |"
    )
    print("|---|---|---|---|")
    for at, name in enumerate(("messages a second", "messages a second of processor time")):
        one, other = ([took[at] for took in side] for side in (theirs, ours))
        ratio = statistics.median(mine / plain for plain, mine in zip(one, other, strict=True))
        print(f"| {name} | {statistics.median(one):,.0f} | {statistics.median(other):,.0f} | {ratio:.2f} |", flush=True)


def _latency(port: int, folder: Path) -> None:
    place = folder / "latency"
    place.mkdir()
    session(port, "aggregator")
    count = RATE * SECONDS
    ours = start("ours", port, place, count, "--times")
    time.sleep(3)
    sent = result(start("publish", port, place, count, "--rate", str(RATE)))
    committed = result(ours)["committed"]
    waits = []
    for number, at in enumerate(sent):
        hour, device = divmod(number, DEVICES)
        waits.append(committed[f"kiosk-{device:03}/{hour + 1}"] - at)
    waits.sort()
    pace = count / (sent[-1] - sent[0])
    print(
        f"| publish to commit at {pace:,.0f} messages a second | p50 {waits[count // 2]:.3f} s, "
        f"p99 {waits[count * 99 // 100]:.3f} s, most {waits[-1]:.3f} s |",
        flush=True,
    )


def _month(port: int, folder: Path, count: int) -> None:
    place = folder / "month"
    place.mkdir()
    session(port, "aggregator")
    ours = start("ours", port, place, count)
    result(start("publish", port, place, count))
    found = result(ours)
    memory = [f"{value / 2**20:.0f}" for value in found["memory"]]
    print(
        f"| a month of {DEVICES} devices ({count} windows): memory in MB, every 20,000 windows | {', '.join(memory)} |"
    )
    size = sum(path.stat().st_size for path in place.rglob("store.db*"))
    log = sum(path.stat().st_size for path in (place / "landing").rglob("*.jsonl"))
    print(f"| its store, its landing log | {size / count:.0f} and {log / count:.0f} bytes a window |", flush=True)


if __name__ == "__main__":
    main()

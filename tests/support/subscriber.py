"""A real `edge-aggregate ingest --broker` as a process, and a client that plays devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt
from edge_aggregate.broker import Broker
from edge_aggregate.connection import Connection
from edge_aggregate.store import open_store
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.windows import window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.broker import Mosquitto


class Process:
    """A subscriber process; `text` is what it has said so far."""

    def __init__(
        self, folder: Path, port: int, *options: str, store: Path | str | None = None, name: str = "one"
    ) -> None:
        self.store = str(store or folder / "store.db")
        self.landing = folder / "landing"
        self._log = folder / f"{name}.log"
        self._command = [
            *(sys.executable, "-c", "import sys; from edge_aggregate.cli import main; sys.exit(main())", "ingest"),
            *("--broker", f"127.0.0.1:{port}", "--store", self.store, "--landing", str(self.landing)),
            *("--client-id", "aggregator", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, environment: dict[str, str] | None = None, ready: bool = True) -> Self:
        """Start and wait until it is subscribed."""
        said = self.text.count("subscribed")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        if ready:
            until(lambda: self.text.count("subscribed") > said, "it subscribes", self)
        return self

    @property
    def text(self) -> str:
        """Its standard error and output."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def end(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(seconds)

    def wait(self, seconds: float = 30) -> int:
        """The exit code of one that ends by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What the store holds."""
        with open_store(self.store, read_only=True) as store:
            return store.engine.fetch(sql)

    def _there(self) -> bool:
        return self.store.startswith("postgresql:") or Path(self.store).exists()

    def windows(self) -> int:
        """Windows in the store."""
        return int(self.ask("SELECT COUNT(*) FROM windows")[0][0]) if self._there() else 0


def until(what: Callable[[], object], words: str, process: Process | None = None, seconds: float = 60) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not what():
        said = "" if process is None else process.text[-2000:]
        assert time.monotonic() < end, f"after {seconds} s: not so: {words}\n{said}"
        time.sleep(0.02)


def unacknowledged(process: Process, broker: Mosquitto, wanted: int = 0) -> list[bytes]:
    """What the broker would send an ended subscriber again: what comes in two seconds, longer for so many `wanted`."""
    until(lambda: broker.away("aggregator"), "the broker has read all that the subscriber said", process)
    found: list[bytes] = []
    connection = Connection(
        Broker("127.0.0.1", broker.port),
        "aggregator",
        keep_s=600,
        receive=100,
        on_message=lambda m: found.append(bytes(m.payload)),
    )
    connection.open()
    assert connection.resumed, process.text
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < 2 or (len(found) < wanted and waited < 60):
        connection.step(0.1)
    connection.close()
    return found


def environment_with(folder: Path, code: str) -> dict[str, str]:
    """An environment in which the subscriber runs this first."""
    patch = folder / "patch"
    patch.mkdir(exist_ok=True)
    (patch / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": f"{patch}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


class Devices:
    """An MQTT 5 client that publishes for any device."""

    def __init__(self, port: int, name: str = "devices") -> None:
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        self._client.max_inflight_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes | dict[str, Any], *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait for the broker's answer."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, body, qos=qos, retain=retain).wait_for_publish(30)

    def count(self, seqs: Iterable[int], *, device: str = "kiosk-1", **fields: Any) -> None:  # noqa: ANN401 - of `window`
        """Publish windows, and wait for the broker's last answer."""
        sent = []
        for seq in seqs:
            line = window(seq, device=device, **fields)
            sent.append(self._client.publish(line["topic"], json.dumps(line["payload"]), qos=1))
        for info in sent:
            info.wait_for_publish(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

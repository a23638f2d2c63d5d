"""Real and false brokers for tests, each on a free loopback port, each ended by the test that started it."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    import signal
    from pathlib import Path

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="no Mosquitto on PATH; install it with: apt-get install mosquitto"
)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, below those that kernels give to clients.

    While a broker is down, the port its clients try must not become their own. Each of pytest's workers has a range.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    while True:
        with socket.socket() as sock, suppress(OSError):
            port = 10_000 + 2_800 * worker + random.randrange(2_800)  # noqa: S311 - no secret
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])


def wait_for_port(port: int, seconds: float = 60) -> None:
    """Wait until something listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    msg = f"nothing listens on {port} after {seconds} s"
    raise TimeoutError(msg)


class Mosquitto:
    """A Mosquitto of its own folder; `lines` are added to its configuration."""

    def __init__(self, folder: Path, lines: str = "", *, port: int | None = None) -> None:
        self.port = port or free_port()
        self._config = folder / f"mosquitto-{self.port}.conf"
        folder.chmod(0o755)
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"user root\nset_tcp_nodelay true\n{lines}\n"
        )
        self._log = folder / f"mosquitto-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until it listens."""
        assert MOSQUITTO is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        wait_for_port(self.port)
        return self

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def ended(self, client: str) -> int:
        """How many connections of clients whose ids begin so it has seen end."""
        return len(re.findall(rf"Client {client}\S* (?:closed|disconnected|already connected)", self.log))

    def away(self, client: str) -> bool:
        """Whether it has seen every connection of such clients end."""
        return self.ended(client) == len(re.findall(rf"New client connected from \S+ as {client}", self.log))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGKILL is a crash, SIGSTOP a broker that hangs."""
        assert self._process is not None
        self._process.send_signal(number)

    def join(self) -> None:
        """Wait for the end that a signal asked for."""
        assert self._process is not None
        self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Kill."""
        self.kill()


class FalseBroker:
    """Answers every CONNECT with the given bytes (None: silence) and remembers the versions it was asked for.

    `answers` maps an MQTT protocol level (4, 5) to a CONNACK; a level that is missing is hung up on. With `hang_up`
    it hangs up on all the others too, once they are answered.
    """

    def __init__(self, answers: dict[int, bytes | None], *, hang_up: bool = False) -> None:
        self._answers, self._hang_up = answers, hang_up
        self.asked: list[int] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = int(self._server.getsockname()[1])
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        kept: list[socket.socket] = []
        while not self._ending.is_set():
            try:
                sock, _ = self._server.accept()
            except TimeoutError:
                continue
            sock.settimeout(2)
            with suppress(OSError):
                packet = sock.recv(4096)
                if not packet:
                    continue
                level = packet[packet.index(b"MQTT") + 4]
                self.asked.append(level)
                if level not in self._answers:
                    sock.close()
                    continue
                answer = self._answers[level]
                if answer is not None:
                    sock.sendall(answer)
                if self._hang_up:
                    sock.close()
                else:
                    kept.append(sock)
        for sock in kept:
            sock.close()

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ending.set()
        self._thread.join(5)
        self._server.close()


def connack5(code: int) -> bytes:
    """An MQTT 5 CONNACK without properties."""
    return bytes((0x20, 3, 0, code, 0))


def connack311(code: int) -> bytes:
    """An MQTT 3.1.1 CONNACK."""
    return bytes((0x20, 2, 0, code))

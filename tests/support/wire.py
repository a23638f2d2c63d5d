"""The publisher as a process, and a subscriber that listens all the while."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edge.commands.demo.subscriber import Broker, messages
from edge.contract import Counts, decode_counts
from edge.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.publisher.session import Incoming

SERVICE = Path(__file__).parents[1] / "contract" / "service.py"


class Service:
    """`service.py` as a process; standard input is its lifeline, standard error goes to a file."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.log = folder / "publisher.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVICE), str(folder), str(port), *arguments],
                stdin=subprocess.PIPE,
                stderr=log,
            )

    def lines(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Wait until it has logged this."""
        wait(lambda: text in self.lines(), seconds, lambda: f"{text!r} not in log:\n{self.lines()}")

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        self.process.kill()
        self.process.wait(10)
        if self.process.stdin is not None:
            self.process.stdin.close()


def wait(
    ready: Callable[[], bool], seconds: float = 30, otherwise: Callable[[], str] = lambda: "did not happen"
) -> None:
    """Wait until `ready`; fail with `otherwise` after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.05)


class Ear:
    """A subscriber in a thread of its own; `heard` is all it got, in order."""

    def __init__(self, broker: int | Broker, *topics: str) -> None:
        """`broker`: a port of 127.0.0.1, or more."""
        self.heard: list[Incoming] = []
        self._broker = Broker("127.0.0.1", broker) if isinstance(broker, int) else broker
        self._topics = topics
        self._ending, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        try:
            for message in messages(
                self._broker, *self._topics, stopping=self._ending.is_set, subscribed=self._ready.set
            ):
                self.heard.append(message)
        except EdgeError:
            if not self._ending.is_set():
                raise

    def counts(self) -> list[Counts]:
        """The decoded `counts` messages."""
        return [decode_counts(m.payload) for m in self.heard if m.topic.endswith("/counts")]

    def keys(self) -> Counter[tuple[str, int]]:
        """How often each (boot_id, seq) came."""
        return Counter((c.boot_id, c.seq) for c in self.counts())

    def __enter__(self) -> Self:
        """Listen, once the broker has agreed."""
        self._thread.start()
        assert self._ready.wait(60), "subscription not answered"
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ending.set()
        self._thread.join(10)

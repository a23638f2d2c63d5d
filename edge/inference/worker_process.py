"""A worker process as the service sees it: started, asked with a deadline, killed at once when it misses one."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from edge.inference.shared_memory import DONE, REQUEST, memory

if TYPE_CHECKING:
    from edge.inference.coral import Device
    from edge.inference.shared_memory import Rows, Store
    from edge.inference.tflite import Choice

_PACKET: Final = 1 << 12


class WorkerFailed(Exception):
    """A worker can no longer be trusted; the class says why."""


class Died(WorkerFailed):
    """Its process ended."""


class Erred(WorkerFailed):
    """It, or its library, gave up with a message."""


class Hung(WorkerFailed):
    """It missed a deadline."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"no answer within {limit_s:g} s")


class Wrong(WorkerFailed):
    """Its golden answers are wrong."""


class Held(WorkerFailed):
    """It was killed, and its driver does not let go of it."""


class WorkerProcess:
    """One worker for one device. It is starting until `started` has returned its golden outputs."""

    def __init__(self, device: Device, number: int, store: Store, start_s: float, choice: Choice = "auto") -> None:
        """Start it for the `number`-th device of its kind; it has `start_s` seconds to get ready.

        Raises OSError when there is no room for another process.
        """
        self.device = device
        self._store, self._start_s = store, start_s
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        exchange = memory(store.exchange_bytes)
        order = {
            "parent": os.getpid(),
            "link": theirs.fileno(),
            "store": store.fd,
            "exchange": exchange,
            "device": device,
            "number": number,
            "runtime": choice,
            "plans": store.plans,
        }
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-m", "edge.inference.worker", json.dumps(order)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # whatever a library prints belongs to the log
                pass_fds=(theirs.fileno(), store.fd, exchange),
            )
            shared = mmap.mmap(exchange, 0)
        finally:
            theirs.close()
            os.close(exchange)
        self._link = ours
        self._views = [plan.exchange(shared) for plan in store.plans]
        self.began = time.monotonic()
        self.ready = False
        self.runtime = ""
        """What it runs its models with, once it is ready: `tflite 2.14.0`."""

    def started(self) -> list[Rows] | None:
        """Each model's outputs (N, …) for its golden inputs; None while it is starting. Raises WorkerFailed."""
        if not self._receive(0):
            if time.monotonic() - self.began > self._start_s:
                raise Hung(self._start_s)
            return None
        self.ready = True
        return [outputs[: plan.golden[1]] for plan, (_, outputs) in zip(self._store.plans, self._views, strict=True)]

    def ask(self, model: int, inputs: Rows) -> None:
        """Let it compute at most `ROWS` inputs (N, …) of a model; `answer` then gives one after the other."""
        self._views[model][0][: len(inputs)] = inputs
        try:
            self._link.send(REQUEST.pack(model, len(inputs)))
        except OSError as error:
            raise Died(self._ending()) from error

    def answer(self, model: int, row: int, deadline_s: float) -> Rows:
        """Output of the next input asked for, the `row`-th. Raises WorkerFailed."""
        if not self._receive(deadline_s):
            raise Hung(deadline_s)
        answer: Rows = self._views[model][1][row]
        return answer

    def check(self) -> None:
        """Raises WorkerFailed when an idle worker has died."""
        if self._process.poll() is not None:
            raise Died(self._ending())

    def _receive(self, timeout: float) -> bool:
        """Whether it has said `DONE`, the first time with its runtime, before the timeout.

        A library that writes where it must not may garble it.
        """
        self._link.settimeout(timeout)
        try:
            reply = self._link.recv(_PACKET)
        except (BlockingIOError, TimeoutError):
            return False
        except ConnectionError:
            reply = b""
        if reply == DONE or (reply.startswith(DONE) and not self.ready):
            self.runtime = reply[len(DONE) :].decode(errors="replace") or self.runtime
            return True
        if reply:
            raise Erred(" ".join(reply[1:].decode(errors="replace").split()))
        raise Died(self._ending())

    def _ending(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "hung up"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def hang_up(self) -> None:
        """Let an idle worker end by itself, so that the library closes the device in order."""
        self._link.close()

    def kill(self) -> None:
        """SIGKILL at once; nothing waits for it, since a driver can hold a dying process for long."""
        self._process.kill()
        self._link.close()

    def gone(self, timeout: float = 0) -> bool:
        """Whether the process has ended."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

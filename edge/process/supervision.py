"""`edge run`: both services as child processes, for a bench or a laptop. On a kiosk systemd does this.

Each child's standard input is a pipe that only this process holds, so a killed supervisor never leaves a
child behind: vision stops and the publisher drains when it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from edge.errors import EdgeError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

STOP_S: Final = 4.0
"""How long a child may take to stop after SIGTERM before it is killed."""


def _child(service: str, config: Path, *extra: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "edge", service, "--config", str(config), "--lifeline", *extra],
        stdin=subprocess.PIPE,
    )


def _release(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()


class Supervisor:
    """Runs vision until it ends, then lets the publisher drain."""

    def __init__(self, config: Path, drain_timeout: float) -> None:
        self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._publisher = _child("publish", config, "--drain-timeout", str(drain_timeout))
        self._vision = _child("vision", config)
        self._drain_timeout = drain_timeout

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> int:
        """0 when the source has ended and everything is published; else the exit code of what failed.

        SIGTERM stops both within 5 s and returns 0, the unsent rows kept.
        """
        while self._vision.poll() is None and not self._stopping:
            if (code := self._publisher.poll()) is not None:  # a refusal that waiting does not mend
                self._end(self._vision)
                return code or EdgeError.exit_code
            time.sleep(0.1)
        if self._stopping:
            self._vision.terminate()  # both at once: the two stops share the five seconds
            self._publisher.terminate()
            codes = self._reap(self._vision), self._reap(self._publisher)
            return max(0 if code == -signal.SIGTERM else abs(code) for code in codes)  # one had not begun to listen
        _release(self._publisher)
        code = self._vision.returncode
        until = time.monotonic() + self._drain_timeout + STOP_S
        while self._publisher.poll() is None and not self._stopping and time.monotonic() < until:
            time.sleep(0.05)
        drained = self._publisher.returncode if self._publisher.poll() is not None else self._end(self._publisher)
        return code or drained

    def _end(self, child: subprocess.Popen[bytes]) -> int:
        """SIGTERM, then SIGKILL; returns the exit code."""
        child.terminate()
        return self._reap(child)

    @staticmethod
    def _reap(child: subprocess.Popen[bytes]) -> int:
        """Exit code of a child that was told to stop: a second SIGTERM could hit it after its last handler is gone."""
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
        return child.wait()

"""sd_notify(3): what systemd is told over `NOTIFY_SOCKET`. Without that variable every call does nothing.

Protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html: one datagram of `NAME=value` lines.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from edge.process.logs import event

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

FEEDS: Final = 4
"""The watchdog is fed at most this often in its interval."""
SEND_S: Final = 1.0


class Notifier:
    """The service manager's ear. Never raises: a manager that does not listen must not end a service."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        usec = environ.get("WATCHDOG_USEC", "")
        self._interval = int(usec) / 1e6 / FEEDS if ours and usec.isdecimal() else None
        self._fed = float("-inf")

    def ready(self, status: str) -> None:
        """Start-up is finished."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1")

    def worked(self) -> None:
        """A unit of work is done: feeds the watchdog, so call it for work and never from a timer."""
        now = time.monotonic()
        if self._interval is not None and now - self._fed >= self._interval:
            self._fed = now
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_S)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning(event("notify_unheard", message=message.partition("=")[0], why=error, next="see NOTIFY_SOCKET"))

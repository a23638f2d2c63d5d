"""One line an event: `event=name key=value …`, to standard error or, under systemd, to the journal with its fields.

Journal protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. `JOURNAL_STREAM` tells if standard error leads there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edge.process.shown import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET: Final = "/run/systemd/journal/socket"
LINES: Final = 20
"""Of one event within `SPAN_S`, at most; what is over is counted and said once."""
SPAN_S: Final = 60.0
_FIELD: Final = re.compile(r'(?:^|\s)([a-z][a-z0-9_]*)=("(?:[^"\\]|\\.)*"|\S+)')
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def event(name: str, /, **fields: object) -> str:
    """One log line without secrets; values with spaces or quotes are written as JSON strings."""
    words = [f"event={name}"]
    for key, value in fields.items():
        text = without_secrets(str(value))
        plain = text and not any(c.isspace() or c in '"=' for c in text)
        words.append(f"{key}={text if plain else json.dumps(text, ensure_ascii=False)}")
    return " ".join(words)


def fields(line: str) -> dict[str, str]:
    """Keys and values of a line that `event` has made; anything else in it is left out."""
    return {key: _value(text) for key, text in _FIELD.findall(line)}


def _value(text: str) -> str:
    """A value as it was before `event` quoted it; one that another program quoted stays as it is."""
    try:
        return str(json.loads(text, strict=False)) if text.startswith('"') else text
    except ValueError:
        return text


class WarningRateLimit(logging.Filter):
    """Lets at most `LINES` warnings of an event through in `SPAN_S`; the next one after that says how many were not.

    Other lines all pass: they come with what is done, and each `window_committed` is a receipt.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; the first of a new span may get `muted=<n>`."""
        if record.levelno < logging.WARNING:
            return True
        try:
            name = record.getMessage().partition(" ")[0]
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: the handler says so
            return True
        now = self._monotonic()
        since, lines = self._said.get(name, (now, 0))
        if now - since >= SPAN_S:
            if lines > LINES:
                record.msg, record.args = f"{record.getMessage()} muted={lines - LINES}", None
            since, lines = now, 0
        self._said[name] = since, lines + 1
        return lines < LINES


class Line(logging.Formatter):
    """`LEVEL logger event=name …`, never more than one line."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Line ends become spaces."""
        return " ".join(super().format(record).splitlines())


class Journal(logging.Handler):
    """Each line with its fields: `journalctl EDGE_EVENT=camera_lost`, `journalctl -o json`."""

    def __init__(self, path: str = SOCKET) -> None:
        """Raises OSError where no journal listens."""
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one datagram; neither a journal that does not take it nor a line that cannot be made ends anything."""
        try:
            self._send(record)
        except Exception:  # noqa: BLE001 - as the handlers of the library do: what is said must not end who says it
            self.handleError(record)

    def _send(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().splitlines())
        entries = {
            "MESSAGE": message,
            "PRIORITY": _PRIORITY.get(record.levelno, 6),
            "SYSLOG_IDENTIFIER": "edge",
            "LOGGER": record.name,
        }
        entries |= {f"EDGE_{key.upper()}": " ".join(value.splitlines()) for key, value in fields(message).items()}
        with suppress(OSError):
            # File names need not be UTF-8: what is not shows as \udcff.
            lines = "".join(f"{name}={value}\n" for name, value in entries.items())
            self._socket.send(lines.encode(errors="backslashreplace"))


def set_up(level: int) -> None:
    """Log from `level` on: to the journal where standard error leads there, else to standard error."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line())
    if _to_journal():
        with suppress(OSError):
            handler = Journal()
    handler.addFilter(WarningRateLimit())
    logging.basicConfig(level=level, handlers=[handler])


def _to_journal() -> bool:
    try:
        held = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{held.st_dev}:{held.st_ino}"

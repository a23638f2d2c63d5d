"""A landing log as the subscriber writes it: each segment in place as a whole or not at all, and never appended to."""

from __future__ import annotations

import base64
import json
import os
from typing import IO, TYPE_CHECKING, Final, Self

from edge.errors import ConfigError, StorageError
from edge_aggregate.simulate.wire import stamp

if TYPE_CHECKING:
    from pathlib import Path

    from edge_aggregate.simulate.fleet import Message

SEGMENT_LINES: Final = 50_000


def line(message: Message) -> bytes:
    """A line of the log, with its end: a device's payload as an object, a stranger's as the text or bytes that came."""
    hostile = message.hostile
    if hostile is None:
        head = f'{{"topic":"{message.topic}","received":"{stamp(message.received_ms)}","payload":'
        return head.encode() + message.payload + b"}\n"
    if hostile.line is not None:
        return hostile.line + b"\n"
    try:
        payload: object = message.payload.decode()
    except UnicodeDecodeError:
        payload = {"base64": base64.b64encode(message.payload).decode()}
    entry = {"topic": message.topic, "received": stamp(message.received_ms), "payload": payload}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


class Segments:
    """Writes lines to `folder`, `SEGMENT_LINES` to a segment. Raises ConfigError and StorageError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.names: list[Path] = []
        self._lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.glob("*.jsonl")):
                msg = f"--out {folder}: there is a log already: give a new folder"
                raise ConfigError(msg)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"--out {self._folder}: {error.strerror}: give a folder that can be written, with room")

    def write(self, text: bytes) -> None:
        """One more line."""
        try:
            if self._file is None:
                name = self._folder / f"segment-{len(self.names) + 1:06d}.jsonl"
                self.names.append(name)
                self._file, self._lines = name.with_suffix(".jsonl.tmp").open("wb", buffering=1 << 20), 0
            self._file.write(text)
            self._lines += 1
            if self._lines >= SEGMENT_LINES:
                self._end()
        except OSError as error:
            raise self._failed(error) from error

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            file.flush()
            os.fsync(file.fileno())
        self.names[-1].with_suffix(".jsonl.tmp").replace(self.names[-1])

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put the last segment in place; after an error leave it `.tmp`, which no reader takes."""
        try:
            if kind is None:
                self._end()
            elif self._file is not None:
                self._file.close()
        except OSError as error:
            raise self._failed(error) from error

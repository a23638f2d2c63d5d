"""The landing log: what came from the broker, line by line, before anybody counted it.

`FOLDER/2026-11-29/20261129T100000.123Z-<who>-<run>-<n>.jsonl`: a segment is written once, as `.tmp`, synced, renamed,
its folder synced, and never touched again. Names sort by time and are one subscriber's own, so that several may share
a folder. A line says the same to `decode_line` as the message said when it came.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge.contract import DEPTH_LIMIT, ContractError, read_json
from edge.errors import StorageError
from edge_aggregate.decode import Dead, Row, decode_fast, decode_message, instant
from edge_aggregate.gc_paused import gc_paused
from edge_aggregate.store import Batch, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edge_aggregate.store import Store

FORGOTTEN_S: Final = 3600.0
"""A `.tmp` so old is of a subscriber that is no more; what it held was never acknowledged."""

_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{3}Z-(?P<run>.+-[0-9a-f]{8})-\d{8}\.jsonl")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Message(NamedTuple):
    """One message as it came; `mid` is the packet's, to acknowledge it by. Times: milliseconds since 1970, UTC."""

    mid: int
    topic: str
    payload: bytes
    received_ms: int


@lru_cache(16)
def received_text(ms: int) -> str:
    """RFC 3339 in UTC, always with milliseconds."""
    return instant(ms).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def line_of(message: Message) -> tuple[bytes, Any]:
    """The line of a message, without its end, and the payload as whoever reads the line will find it."""
    text, body = _payload(message.payload)
    return _line(message, text), body


def _line(message: Message, payload: bytes) -> bytes:
    return b'{"topic":%s,"received":"%s","payload":%s}' % (
        json.dumps(message.topic).encode(),
        received_text(message.received_ms).encode(),
        payload,
    )


def _one_line(payload: bytes) -> bytes:
    """JSON without the ends of lines that may stand between its parts."""
    return payload.replace(b"\n", b" ").replace(b"\r", b" ")


def _payload(payload: bytes) -> tuple[bytes, dict[str, object] | str | bytes]:
    """JSON text for it: itself where it is an object, else a string, else base64."""
    try:
        found = read_json(payload)
    except ContractError:
        found = None
    # What is one level too deep inside a line, and an object that would pose as our base64, stay texts.
    if isinstance(found, dict) and found.keys() != {"base64"} and _shallow(payload):
        return _one_line(payload), found
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return b'{"base64":"%s"}' % base64.b64encode(payload), payload
    return json.dumps(text).encode(), text


def _shallow(payload: bytes) -> bool:
    return payload.count(b"{") + payload.count(b"[") < DEPTH_LIMIT


@dataclass(slots=True)
class Segment:
    """One that is durable: the batch that it is for a store, and the packets that may be acknowledged once it is in."""

    path: Path
    batch: Batch
    mids: list[int] = field(default_factory=list)


class Landing:
    """One subscriber's hand on the folder. Raises StorageError, in one line, when it cannot be written."""

    def __init__(self, folder: Path, who: str) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{folder}: cannot be made ({error.strerror}): name a folder that this user may write to"
            raise StorageError(msg) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            msg = f"{folder}: this user may not write there: name another folder, or give it to this user"
            raise StorageError(msg)
        self.folder = folder.resolve()
        self._run = f"{re.sub('[^A-Za-z0-9_.]', '_', who)[:64]}-{secrets.token_hex(4)}"
        self._number = self._last_ms = 0

    @gc_paused()
    def write(self, messages: Iterable[Message]) -> Segment:
        """Make a segment of them. When it returns, a power cut does not lose them. Raises StorageError."""
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)  # a clock set back must not unsort the names
        stamp = received_text(self._last_ms)
        self._number += 1
        day = self.folder / stamp[:10]
        path = day / f"{stamp.replace('-', '').replace(':', '')}-{self._run}-{self._number:08}.jsonl"
        batch, mids, lines = Batch(Progress(str(path), 0, 0, "")), [], []
        for number, message in enumerate(messages, 1):
            found: Row | Dead | None = decode_fast(message.topic, message.received_ms, message.payload)
            if found is not None:
                lines.append(_line(message, _one_line(message.payload)))
            else:
                line, body = line_of(message)
                lines.append(line)
                found = decode_message(message.topic, message.received_ms, body)
            mids.append(message.mid)
            batch.add(number, found)
        lines.append(b"")
        data = b"\n".join(lines)
        batch.progress = Progress(str(path), len(mids), len(data), hashlib.sha256(data).hexdigest())
        self._put(path, data)
        return Segment(path, batch, mids)

    def _put(self, path: Path, data: bytes) -> None:
        draft = path.with_suffix(".tmp")
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(exist_ok=True)
                _sync(self.folder)
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            _sync(path.parent)
        except OSError as error:
            for left in (draft, path):
                with suppress(OSError):
                    left.unlink()
            raise self._full(error) from error

    def probe(self) -> None:
        """Whether a megabyte would find room. Raises StorageError."""
        draft = self.folder / f"{self._run}.tmp"
        try:
            with draft.open("wb") as file:
                file.write(bytes(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._full(error) from error
        finally:
            with suppress(OSError):
                draft.unlink()

    def _full(self, error: OSError) -> StorageError:
        what = "the disk is full: make room" if error.errno in _FULL else f"{error.strerror}: see to the folder"
        return StorageError(f"landing log {self.folder}: {what}; nothing is acknowledged meanwhile")

    def unsettled(self, store: Store) -> list[Path]:
        """Segments that the store does not have, the oldest first: of each run, all after the last that it has.

        A run's segments go into the store in their order, so that the newest ones need a look and no others. Raises
        StorageError.
        """
        settled: set[str] = set()
        found: list[Path] = []
        for day in self._days():
            for path in self._segments(day):
                name = _NAME.fullmatch(path.name)
                if name is None or name["run"] in settled:
                    continue
                if store.progress(str(path)) is None:
                    found.append(path)
                else:
                    settled.add(name["run"])
        return found[::-1]

    def _days(self) -> Iterator[Path]:
        """Newest first."""
        yield from sorted((day for day in self.folder.iterdir() if _DAY.fullmatch(day.name)), reverse=True)

    def _segments(self, day: Path) -> list[Path]:
        """Newest first; drafts of subscribers that are no more are cleared away."""
        segments = []
        for path in day.iterdir():
            if path.suffix == ".tmp":
                with suppress(OSError):
                    if path.stat().st_mtime < time.time() - FORGOTTEN_S:
                        path.unlink()
            elif path.suffix == ".jsonl":
                segments.append(path)
        return sorted(segments, reverse=True)


_FULL: Final = (28, 122)
"""ENOSPC, EDQUOT."""


def _sync(folder: Path) -> None:
    """Make what was named in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

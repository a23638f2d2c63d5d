"""What an ingest log holds, by the contract's rules: windows, duplicates, conflicts, gaps, dead letters."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from edge.contract import (
    SIZE_LIMIT,
    ContractError,
    Counts,
    decode_counts,
    encode,
    parse_topic,
    parse_utc,
    read_json,
)
from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

Key = tuple[str, str, int]

LINE_LIMIT: Final = 8 * SIZE_LIMIT
"""Bytes of a line: a payload at its largest, as a text with every character escaped, and its envelope."""


@dataclass(slots=True)
class Findings:
    """`dead` holds (line number, reason); `conflicts` counts payloads set aside; the rest as the contract says."""

    windows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    missing: int = 0
    dead: list[tuple[int, str]] = field(default_factory=list)


def check_log(path: Path) -> Findings:
    """Read an ingest log (one JSON object a line: topic, received, payload). Raises SourceError if unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(len(codecs.BOM_UTF8))
            if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                msg = f"{path}: is UTF-16: save it as UTF-8"
                raise SourceError(msg)
            file.seek(len(start) if start == codecs.BOM_UTF8 else 0)
            return _check(_lines(file))
    except OSError as error:
        msg = f"{path}: {error.strerror}: give an ingest log, one JSON object a line"
        raise SourceError(msg) from error


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Its lines; of a longer one than is read, the first `LINE_LIMIT` + 1 bytes, so that no line fills the memory."""
    while line := file.readline(LINE_LIMIT + 1):
        yield line
        while len(line) > LINE_LIMIT and not line.endswith(b"\n"):
            line = file.readline(LINE_LIMIT + 1)


def _check(lines: Iterable[bytes]) -> Findings:
    found = Findings()
    kept: dict[Key, tuple[datetime, str, Counts]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            received, payload = _read(line)
        except ContractError as error:
            found.dead.append((number, str(error)))
            continue
        if payload is None:  # another of the contract's topics: not a window
            continue
        digest = hashlib.sha256(encode(payload)).hexdigest()
        before = kept.get(payload.key)
        if before is None:
            kept[payload.key] = received, digest, payload
        elif before[1] == digest:
            found.duplicates += 1
            kept[payload.key] = min(before, (received, digest, payload), key=lambda k: k[:2])
        else:
            found.conflicts += 1
            found.dead.append(
                (number, f"conflict: another payload for {payload.device} {payload.boot_id}/{payload.seq}")
            )
            kept[payload.key] = min(before, (received, digest, payload), key=lambda k: k[:2])
    found.windows = len(kept)
    found.missing = _missing([payload for _, _, payload in kept.values()])
    return found


def _read(line: bytes) -> tuple[datetime, Counts | None]:
    """(received, payload) of a line. Raises ContractError saying why it is a dead letter."""
    entry = read_json(line, limit=LINE_LIMIT)
    if not isinstance(entry, dict) or not {"topic", "received", "payload"} <= entry.keys():
        msg = "not an object with topic, received and payload"
        raise ContractError(msg)
    topic, body = entry["topic"], entry["payload"]
    if not isinstance(topic, str):
        msg = "topic is no text"
        raise ContractError(msg)
    topics, leaf = parse_topic(topic)
    try:
        received = parse_utc(entry["received"])
    except ValueError as error:
        msg = f"received: {error}"
        raise ContractError(msg) from error
    if leaf != "counts":
        return received, None
    if not isinstance(body, str | dict):
        msg = "payload is neither an object nor a text"
        raise ContractError(msg)
    payload = decode_counts(body)
    if (topics.site, topics.device) != (payload.site, payload.device):
        msg = f"topic says {topics.site}/{topics.device}, payload says {payload.site}/{payload.device}"
        raise ContractError(msg)
    return received, payload


def _missing(payloads: list[Counts]) -> int:
    """Gaps in seq within each boot, and tails that a later boot's `prev` says there were."""
    seen: dict[tuple[str, str], set[int]] = {}
    last: dict[tuple[str, str], int] = {}
    for payload in payloads:
        boot = payload.device, payload.boot_id
        seen.setdefault(boot, set()).add(payload.seq)
        last[boot] = max(last.get(boot, 0), payload.seq)
        if payload.prev is not None:
            before = payload.device, payload.prev.boot_id
            last[before] = max(last.get(before, 0), payload.prev.last_seq)
    return sum(end - len(seen.get(boot, ())) for boot, end in last.items())

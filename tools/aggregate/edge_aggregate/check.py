"""What an ingest log holds, by the contract's rules: windows, duplicates, conflicts, gaps, dead letters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.contract import ContractError, Counts, decode_counts, encode, parse_topic
from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Key = tuple[str, str, int]


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
        with path.open(encoding="utf-8", errors="replace") as lines:
            return _check(lines)
    except OSError as error:
        msg = f"{path}: {error.strerror}: give an ingest log, one JSON object a line"
        raise SourceError(msg) from error


def _check(lines: Iterable[str]) -> Findings:
    found = Findings()
    kept: dict[Key, tuple[str, str, Counts]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            received, payload = _read(line)
        except (ContractError, ValueError) as error:
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


def _read(line: str) -> tuple[str, Counts | None]:
    """(received, payload) of a line. Raises ContractError or ValueError saying why it is a dead letter."""
    entry: Any = json.loads(line)
    if not isinstance(entry, dict) or not {"topic", "received", "payload"} <= entry.keys():
        msg = "not an object with topic, received and payload"
        raise ValueError(msg)
    topics, leaf = parse_topic(str(entry["topic"]))
    if leaf != "counts":
        return str(entry["received"]), None
    body = entry["payload"]
    payload = decode_counts(body if isinstance(body, str) else json.dumps(body))
    if (topics.site, topics.device) != (payload.site, payload.device):
        msg = f"topic says {topics.site}/{topics.device}, payload says {payload.site}/{payload.device}"
        raise ValueError(msg)
    return str(entry["received"]), payload


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

"""What an ingest log holds, by the contract's rules: windows, duplicates, conflicts, gaps, dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_aggregate.ingest import ingest_files
from edge_aggregate.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Findings:
    """`dead` holds (line number, reason) of the dead letters, `files` the file of each of them.

    `unlisted` counts dead letters that are not in `dead`: the newest are kept. `conflicts` counts lines that contradict
    the payload that is kept, `conflicting` holds (file, line number, window) of the first line of each such payload.
    The rest as the contract says.
    """

    windows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    missing: int = 0
    dead: list[tuple[int, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unlisted: int = 0
    conflicting: list[tuple[str, int, str]] = field(default_factory=list)


def check_log(*paths: Path) -> Findings:
    """Read the files of a log (one JSON object a line: topic, received, payload) as one. Raises SourceError."""
    with open_store(":memory:", create=True) as store:
        merged = ingest_files(store, paths).merged
        fetch = store.engine.fetch
        found = Findings(merged.windows, merged.duplicates, merged.conflicts)
        found.missing = int(fetch("SELECT COALESCE(SUM(last_seq - first_seq + 1), 0) FROM gaps")[0][0])
        dead = fetch("SELECT s.name, x.line, x.reason FROM dead x JOIN segments s ON s.id = x.segment")
        found.unlisted = merged.dead - len(dead)
        found.conflicting = sorted(
            (name, line, f"{device} {boot_id}/{seq}")
            for name, line, device, boot_id, seq in fetch(
                "SELECT s.name, v.line, d.name, b.boot_id, v.seq FROM variants v JOIN boots b ON b.id = v.boot"
                " JOIN devices d ON d.id = b.device JOIN segments s ON s.id = v.segment WHERE v.digest <> ''"
            )
        )
    for name, line, reason in sorted(dead):
        found.files.append(name)
        found.dead.append((line, reason))
    return found

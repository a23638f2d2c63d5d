"""Windows of devices as lines of a landing log, and what a store made of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from edge.types import CELLS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edge_aggregate.store import Store

DAY: Final = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday."""
BOOT: Final = "a" * 32
MODELS: Final = {
    "gate": "sha256:" + "1" * 64,
    "fer_unmasked": "sha256:" + "2" * 64,
    "fer_masked": "sha256:" + "3" * 64,
    "route": "gate",
}
HEALTH: Final[dict[str, Any]] = {
    "boot_id": BOOT,
    "backend": "cpu",
    "rate": "ok",
    "invoke_ms": {"p50": 3.0, "p95": 5.0},
    "drops": {},
    "restarts": 0,
    "outbox": {"unsent": 0, "oldest_s": 0},
    "soc_c": 50.5,
    "scene": "ok",
    "time_quality": "synced",
    "paused": False,
    "versions": {"edge": "1.0"},
}
"""What a kiosk says of itself, where all is well."""


def window(  # noqa: PLR0913 - fields of a payload
    seq: int,
    *,
    start: datetime = DAY,
    hours: float = 1,
    cells: dict[str, int] | None = None,
    draws: dict[str, int] | None = None,
    site: str = "lobby",
    device: str = "kiosk-1",
    boot: str = BOOT,
    prev: tuple[str, int] | None = None,
    flush: bool = False,
    quality: str = "synced",
    coverage: float = 1.0,
    epsilon: float | None = 1.0,
    min_count: int = 10,
    received: datetime | None = None,
) -> dict[str, Any]:
    """One line. `cells` and `draws` by `unmasked_happy` and so on; the rest is not released, the draws are 1."""
    cells, draws = cells or {}, draws or {}
    table = {route: {cell: cells.get(f"{route}_{cell}") for cell in CELLS} for route in ROUTES}
    drawn = {
        route: {
            cell: 0 if value is None or epsilon is None else draws.get(f"{route}_{cell}", 1)
            for cell, value in row.items()
        }
        for route, row in table.items()
    }
    payload = {
        "schema": "edge.counts/1",
        "site": site,
        "device": device,
        "boot_id": boot,
        "seq": seq,
        "prev": None if prev is None else {"boot_id": prev[0], "last_seq": prev[1]},
        "window": {"start": start.isoformat(), "seconds": hours * 3600, "time_quality": quality},
        "counts": table,
        "suppressed_cells": 16 - len(cells),
        "visitors": sum(cells.values()),
        "coverage": coverage,
        "scene": "ok",
        "privacy": {
            "mechanism": "none" if epsilon is None else "discrete-laplace",
            "epsilon": epsilon,
            "unit": "one class per track per window",
            "min_count": min_count,
        },
        "models": MODELS,
        "flush": flush,
        "noise_draws": drawn,
    }
    received = received or start + timedelta(hours=hours, seconds=1)
    return {"topic": f"edge/v1/{site}/{device}/counts", "received": received.isoformat(), "payload": payload}


def write_log(path: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    """A landing log of these lines; texts are written as they are."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


_DUMPED: Final = {
    "windows": "SELECT d.name, b.boot_id, s.name, t.epsilon, t.fer_unmasked, w.* FROM windows w"
    " JOIN boots b ON b.id = w.boot JOIN devices d ON d.id = b.device JOIN sites s ON s.id = w.site"
    " JOIN terms t ON t.id = w.terms",
    "days": "SELECT s.name, v.name, t.epsilon, t.fer_unmasked, d.* FROM days d JOIN sites s ON s.id = d.site"
    " JOIN devices v ON v.id = d.device JOIN terms t ON t.id = d.terms",
    "spans": "SELECT s.name, v.name, t.epsilon, t.fer_unmasked, d.* FROM spans d JOIN sites s ON s.id = d.site"
    " JOIN devices v ON v.id = d.device JOIN terms t ON t.id = d.terms",
    "gaps": "SELECT b.boot_id, s.name, g.first_seq, g.last_seq, g.after_ms, g.before_ms FROM gaps g"
    " JOIN boots b ON b.id = g.boot JOIN sites s ON s.id = g.site",
    "boots": "SELECT d.name, b.boot_id, b.top_seq, b.closed_ms, b.last_start_ms, b.first_received_ms FROM boots b"
    " JOIN devices d ON d.id = b.device",
    "variants": "SELECT b.boot_id, v.seq, v.digest, v.payload, v.lines, v.received_ms FROM variants v"
    " JOIN boots b ON b.id = v.boot",
    "dead_kinds": "SELECT kind, lines FROM dead_kinds",
}
_IDS: Final = {"boot", "site", "terms", "device", "prev_boot", "segment", "line"}


def dump(store: Store) -> dict[str, list[str]]:
    """All that counts, with names in the place of ids and without where it came from: equal for equal stores."""
    from edge_aggregate.store.schema import DAY_COLUMNS, SPAN_COLUMNS, WINDOW_COLUMNS

    columns = {"windows": WINDOW_COLUMNS, "days": DAY_COLUMNS, "spans": SPAN_COLUMNS}
    found = {}
    for table, sql in _DUMPED.items():
        rows = store.engine.fetch(sql)
        named = columns.get(table, ())
        first = len(rows[0]) - len(named) if rows else 0
        drop = {first + place for place, name in enumerate(named) if name in _IDS}
        found[table] = sorted(repr([value for place, value in enumerate(row) if place not in drop]) for row in rows)
    return found

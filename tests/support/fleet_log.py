"""A large landing log, quickly: an hourly fleet with everything that goes wrong in one.

Not `edge-aggregate simulate`: it draws visitors, accumulators and noise as a device does, which takes three times as
long, and nothing here asks what was true.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from edge_aggregate.decode import instant, milliseconds

from edge.contract import utc_text
from edge.types import CELLS, ROUTES
from tests.support.windows import MODELS

if TYPE_CHECKING:
    from pathlib import Path

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
_HOUR_MS: Final = 3_600_000
_HOSTILE: Final = (
    '{"topic": "edge/v1/s1/k1/counts", "received": "2026-03-02T00:00:00Z", "payload": {"schema": "edge.counts/1"',
    '{"topic": "edge/v1/\\u0000\\ud800/k1/counts", "received": "2026-03-02T00:00:00Z", "payload": "x"}',
    '{"topic": "edge/v1/s1/k1/counts", "received": "2026-03-02T00:00:00Z", "payload": ' + "[" * 300 + "]" * 300 + "}",
    '{"topic": "edge/v1/s1/k1/counts", "received": "0001-01-01T00:00:00+14:00", "payload": {}}',
    '{"topic": "edge/v1/s1/k1/counts", "received": "2026-03-02T00:00:00Z", "payload": {"base64": "/v8="}}',
    "\x00\x01 not even a line",
    '{"topic": "edge/v1/s1/k1/status", "received": "2026-03-02T00:00:00Z", "payload": {}}',
)


def write_fleet_log(folder: Path, *, devices: int, hours: int, lines_a_segment: int, seed: int = 1) -> int:
    """Segments of a shuffled log; how many windows were drawn.

    3 % of the windows come twice, 5 % days late, 1 % never, .2 % are contradicted, .3 % of the lines are hostile, and
    kiosks start anew.
    """
    r = random.Random(seed)  # noqa: S311 - no secret
    lines: list[str] = []
    windows = 0
    for device in range(devices):
        boot, prev, seq = f"{r.getrandbits(128):032x}", None, 0
        for hour in range(hours):
            if seq and r.random() < 0.003:
                boot, prev, seq = f"{r.getrandbits(128):032x}", {"boot_id": boot, "last_seq": seq}, 0
            seq += 1
            if r.random() < 0.01:
                continue
            windows += 1
            start_ms = milliseconds(START) + hour * _HOUR_MS
            payload = _payload(r, f"s{device % 50}", f"k{device}", start_ms, flush=hour % 24 == 23)
            payload |= {"boot_id": boot, "seq": seq, "prev": prev}
            late = r.randrange(24, 200) * _HOUR_MS if r.random() < 0.05 else 0
            received = start_ms + _HOUR_MS + r.randrange(60_000) + late
            lines.append(_line(payload, received))
            while r.random() < 0.03:
                lines.append(_line(payload, received + r.randrange(-60_000, 7_200_000)))
            if r.random() < 0.002:
                other = payload | {"coverage": r.choice([0.25, 0.5])}
                lines.append(_line(other, received + r.randrange(-60_000, 60_000)))
            if r.random() < 0.003:
                lines.append(r.choice(_HOSTILE))
    r.shuffle(lines)
    for first in range(0, len(lines), lines_a_segment):
        text = "\n".join(lines[first : first + lines_a_segment]) + "\n"
        (folder / f"{first:08}.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    return windows


def _payload(r: random.Random, site: str, device: str, start_ms: int, *, flush: bool) -> dict[str, object]:
    low = -5 if flush else 10
    cells = [[r.randrange(low, 40) if flush or r.random() < 0.4 else None for _ in CELLS] for _ in ROUTES]
    released = [value for row in cells for value in row if value is not None]
    return {
        "schema": "edge.counts/1",
        "site": site,
        "device": device,
        "window": {"start": utc_text(instant(start_ms)), "seconds": 3600, "time_quality": "synced"},
        "counts": {route: dict(zip(CELLS, row, strict=True)) for route, row in zip(ROUTES, cells, strict=True)},
        "suppressed_cells": 16 - len(released),
        "visitors": sum(released),
        "coverage": 0.98,
        "scene": "ok",
        "privacy": {
            "mechanism": "discrete-laplace",
            "epsilon": 1.0,
            "unit": "one class per track per window",
            "min_count": 10,
        },
        "models": MODELS,
        "flush": flush,
        "noise_draws": {
            route: {cell: 0 if value is None else r.randrange(1, 9) for cell, value in zip(CELLS, row, strict=True)}
            for route, row in zip(ROUTES, cells, strict=True)
        },
    }


def _line(payload: dict[str, object], received_ms: int) -> str:
    topic = f"edge/v1/{payload['site']}/{payload['device']}/counts"
    return json.dumps({"topic": topic, "received": utc_text(instant(received_ms)), "payload": payload})

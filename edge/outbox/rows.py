"""A row of the outbox: the tables it lies in, and what the publisher reads from it.

`sent_at` is the number of the day, as `Outbox.prune` counts them.

Whoever was taken over on the other side can write anything into a row. What is no window (a wrong type, a number out of
bounds, a word that is none of ours) is refused and counted, and holds up no other row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from pydantic import TypeAdapter

from edge.types import CELLS, ROUTES, TimeQuality, Unit, WindowReport

Key = tuple[str, int]
"""(boot_id, seq)."""

VERSION: Final = 1
UNSENT, SENT, REFUSED = 0, 1, 2
REPORT: Final = TypeAdapter(WindowReport)
SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE boots (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL UNIQUE, kernel_boot_id TEXT NOT NULL,
  prev_boot_id TEXT, prev_last_seq INTEGER, last_seq INTEGER NOT NULL DEFAULT 0);
CREATE TABLE rows (
  n INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, seq INTEGER NOT NULL, prev_boot_id TEXT,
  prev_last_seq INTEGER, kernel_boot_id TEXT NOT NULL, report TEXT NOT NULL, committed REAL NOT NULL,
  committed_mono REAL NOT NULL, state INTEGER NOT NULL DEFAULT 0, sent_at REAL, label_start TEXT,
  label_quality TEXT, UNIQUE (boot_id, seq));
CREATE INDEX rows_by_state ON rows (state, n);
"""
SELECT: Final = (
    "SELECT boot_id, seq, prev_boot_id, prev_last_seq, kernel_boot_id, report, committed, committed_mono, "
    "label_start, label_quality, state FROM rows"
)
"""Columns in the order of `read_row`."""
SOUND: Final = (
    "typeof(boot_id) = 'text' AND length(boot_id) = 32 AND boot_id NOT GLOB '*[^0-9a-f]*'"
    " AND typeof(seq) = 'integer' AND seq > 0"
    " AND ((prev_boot_id IS NULL AND prev_last_seq IS NULL) OR (typeof(prev_boot_id) = 'text'"
    " AND length(prev_boot_id) = 32 AND prev_boot_id NOT GLOB '*[^0-9a-f]*'"
    " AND typeof(prev_last_seq) = 'integer' AND prev_last_seq > 0))"
    " AND typeof(kernel_boot_id) = 'text' AND length(kernel_boot_id) <= 64"
    " AND typeof(report) = 'text' AND length(report) <= 8192"
    " AND typeof(committed) = 'real' AND abs(committed) < 1e12"
    " AND typeof(committed_mono) = 'real' AND abs(committed_mono) < 1e12"
    " AND ((label_start IS NULL AND label_quality IS NULL) OR (typeof(label_start) = 'text'"
    " AND length(label_start) <= 40 AND julianday(label_start) BETWEEN 2415020.5 AND 2816787.5"
    " AND label_quality IN ('synced', 'holdover', 'unsynced')))"
)
"""What SQL can say of a row that `read_row` is given; the rest is `Row.report`'s to check."""


@dataclass(frozen=True, slots=True)
class Row:
    """A committed window as the publisher reads it.

    `committed` is the wall clock at commit (s since 1970), `committed_mono` the monotonic one, comparable
    within `kernel_boot_id`. `label` is the publisher's decision on start and time quality, once it is made.
    """

    boot_id: str
    seq: int
    prev: Key | None
    kernel_boot_id: str
    body: str
    committed: float
    committed_mono: float
    label: tuple[datetime, TimeQuality] | None
    sent: bool

    @property
    def key(self) -> Key:
        """(boot_id, seq)."""
        return self.boot_id, self.seq

    def report(self) -> WindowReport:
        """The window. Raises ValueError when it is none that a sound vision service could have written."""
        report = REPORT.validate_json(self.body)
        _check(report)
        return report


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """Unsent rows, age of the oldest in seconds, and rows that the size bound or a refusal cost so far."""

    unsent: int
    oldest_s: float
    dropped: int
    refused: int


_LONGEST: Final = timedelta(days=2).total_seconds()
_MOST: Final = 10**6


def _check(report: WindowReport) -> None:
    """Raise ValueError for what the types let through."""
    shape = {route: set(CELLS) for route in ROUTES}
    says = report.privacy
    rules = (
        ("counts", {route: set(row) for route, row in report.counts.items()} == shape),
        ("noise_draws", {route: set(row) for route, row in report.noise_draws.items()} == shape),
        ("counts", all(v is None or abs(v) <= _MOST for row in report.counts.values() for v in row.values())),
        ("noise_draws", all(0 <= n <= _MOST for row in report.noise_draws.values() for n in row.values())),
        ("seconds", 0 <= report.seconds <= _LONGEST),
        ("coverage", 0 <= report.coverage <= 1),
        ("mono", all(math.isfinite(t) and abs(t) < 1e9 for t in (report.mono_start, report.mono_end))),
        ("start", report.start.tzinfo is not None and 1970 <= report.start.year <= 2999),
        ("privacy.unit", says.unit in get_args(Unit)),
        ("privacy.min_count", 1 <= says.min_count <= _MOST),
        ("privacy.epsilon", (says.epsilon is None) == (says.mechanism == "none")),
        ("privacy.epsilon", says.epsilon is None or 0 < says.epsilon <= 100),
    )
    for field, holds in rules:
        if not holds:
            msg = f"{field}: no window has such a value"
            raise ValueError(msg)


def read_row(
    values: tuple[str, int, str | None, int | None, str, str, float, float, str | None, TimeQuality, int],
) -> Row:
    """A row as `SELECT` gives it where it is `SOUND`."""
    boot, seq, prev_boot, prev_seq, kernel, body, committed, mono, start, quality, state = values
    label = None
    if start is not None:
        try:
            label = datetime.fromisoformat(start).astimezone(UTC), quality
        except (ValueError, OverflowError):  # a time to SQLite only: no body, so `Row.report` refuses it
            body = ""
    return Row(
        boot_id=boot,
        seq=seq,
        prev=None if prev_boot is None or prev_seq is None else (prev_boot, prev_seq),
        kernel_boot_id=kernel,
        body=body,
        committed=committed,
        committed_mono=mono,
        label=label,
        sent=state == SENT,
    )

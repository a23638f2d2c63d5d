"""A row of the outbox: the tables it lies in, and what the publisher reads from it.

`sent_at` is the number of the day, as `Outbox.prune` counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from edge.types import TimeQuality, WindowReport

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
        """The window. Raises ValueError when the row was not written by a version this one can read."""
        return REPORT.validate_json(self.body)


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """Unsent rows, age of the oldest in seconds, and rows that the size bound or a refusal cost so far."""

    unsent: int
    oldest_s: float
    dropped: int
    refused: int


def read_row(
    values: tuple[str, int, str | None, int | None, str, str, float, float, str | None, TimeQuality, int],
) -> Row:
    """A row as `SELECT` gives it."""
    boot, seq, prev_boot, prev_seq, kernel, body, committed, mono, start, quality, state = values
    return Row(
        boot_id=boot,
        seq=seq,
        prev=None if prev_boot is None or prev_seq is None else (prev_boot, prev_seq),
        kernel_boot_id=kernel,
        body=body,
        committed=committed,
        committed_mono=mono,
        label=None if start is None else (datetime.fromisoformat(start), quality),
        sent=state == SENT,
    )

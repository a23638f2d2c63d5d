"""The tables, once for both engines, and how an older store becomes a newer one.

Everything counted is an integer, so that sums are the same in any order and on any machine; ids are given by the merge,
which one writer at a time runs. `BIGINT` has integer affinity in SQLite.
"""

from __future__ import annotations

from typing import Final

from edge.types import CELLS, ROUTES
from edge_aggregate.decode import UNSYNCED

VERSION: Final = 4
"""Of the schema. A store of a newer one is refused, one of an older one is migrated by `MIGRATIONS`."""

CELL_COLUMNS: Final = tuple(f"{route}_{cell}" for route in ROUTES for cell in CELLS)
DRAW_COLUMNS: Final = tuple(f"draws_{column}" for column in CELL_COLUMNS)

WINDOW_COLUMNS: Final = (
    *("boot", "seq", "site", "terms", "start_ms", "seconds", "milliseconds", "quality", "coverage", "covered_ppm_s"),
    *("scene", "flush", "suppressed", "prev_boot", "prev_seq", "received_ms", "duplicates", "segment", "line"),
    *CELL_COLUMNS,
    *DRAW_COLUMNS,
)
DAY_KEY: Final = ("site", "day", "device", "terms", "quality")
DAY_SUMS: Final = ("windows", "duplicates", "milliseconds", "covered_ppm_s", *CELL_COLUMNS, *DRAW_COLUMNS)
DAY_COLUMNS: Final = (*DAY_KEY, *DAY_SUMS, "first_received_ms", "last_received_ms")
SPAN_DAYS: Final = 8
"""Of a long period nearly all is read from spans, a few days at its ends from the table of days."""
SPAN_KEY: Final = ("site", "span", "device", "terms", "quality")
SPAN_COLUMNS: Final = (*SPAN_KEY, *DAY_SUMS, "first_day", "last_day", "told_late_ms", "late_ms")


def _columns(names: tuple[str, ...], kind: str) -> str:
    return ", ".join(f"{name} {kind}" for name in names)


_SPANS: Final = f"""
CREATE TABLE spans (
  site BIGINT NOT NULL, span BIGINT NOT NULL, device BIGINT NOT NULL, terms BIGINT NOT NULL, quality BIGINT NOT NULL,
  {_columns(DAY_SUMS, "BIGINT NOT NULL")},
  first_day BIGINT NOT NULL, last_day BIGINT NOT NULL, told_late_ms BIGINT NOT NULL, late_ms BIGINT NOT NULL,
  PRIMARY KEY ({", ".join(SPAN_KEY)})) /* without rowid */"""

TERMS_COLUMNS: Final = (
    *("mechanism", "epsilon", "unit", "min_count", "exhausted"),
    *("gate", "fer_unmasked", "fer_masked", "strategy"),
)
"""In the order of `decode.Terms`."""
_BY_VALUE: Final = (
    "CREATE INDEX terms_by_value ON terms (min_count, unit, epsilon, fer_unmasked, fer_masked, gate, strategy)"
)
_BY_CONTENT: Final = "CREATE INDEX segments_by_content ON segments (bytes, sha256)"

TABLES: Final = tuple(
    f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE sites (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE devices (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- A run of a device. top_seq: the greatest number held; floor_seq: up to here retention took them; closed_ms: the end
-- of the last window that left nothing in the device's accumulators.
CREATE TABLE boots (
  id BIGINT PRIMARY KEY, device BIGINT NOT NULL, boot_id TEXT NOT NULL, top_seq BIGINT NOT NULL,
  floor_seq BIGINT NOT NULL, closed_ms BIGINT, last_start_ms BIGINT, first_received_ms BIGINT,
  UNIQUE (device, boot_id));

-- device: who brought them; null in a store that was older.
CREATE TABLE terms (
  id BIGINT PRIMARY KEY, mechanism TEXT NOT NULL, epsilon DOUBLE PRECISION, unit TEXT NOT NULL,
  min_count BIGINT NOT NULL, exhausted BIGINT NOT NULL, gate TEXT, fer_unmasked TEXT, fer_masked TEXT,
  strategy TEXT NOT NULL, device BIGINT);
{_BY_VALUE};

-- How far each log is read: `bytes` of it, whose digest is `sha256`.
CREATE TABLE segments (
  id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, lines BIGINT NOT NULL, bytes BIGINT NOT NULL,
  sha256 TEXT NOT NULL);
{_BY_CONTENT};

CREATE TABLE windows (
  boot BIGINT NOT NULL, seq BIGINT NOT NULL, site BIGINT NOT NULL, terms BIGINT NOT NULL, start_ms BIGINT NOT NULL,
  seconds DOUBLE PRECISION NOT NULL, milliseconds BIGINT NOT NULL, quality BIGINT NOT NULL,
  coverage DOUBLE PRECISION NOT NULL, covered_ppm_s BIGINT NOT NULL, scene BIGINT NOT NULL, flush BIGINT NOT NULL,
  suppressed BIGINT NOT NULL, prev_boot BIGINT, prev_seq BIGINT, received_ms BIGINT NOT NULL,
  duplicates BIGINT NOT NULL, segment BIGINT NOT NULL, line BIGINT NOT NULL,
  {_columns(CELL_COLUMNS, "BIGINT")},
  {_columns(DRAW_COLUMNS, "BIGINT NOT NULL")},
  PRIMARY KEY (boot, seq)) /* without rowid */;
CREATE INDEX windows_by_time ON windows (site, start_ms);

-- Other payloads under the key of a window: of those, the smallest (received, digest) is in `windows`. A row without a
-- digest counts the lines of those that are not kept.
CREATE TABLE variants (
  boot BIGINT NOT NULL, seq BIGINT NOT NULL, digest TEXT NOT NULL, payload TEXT NOT NULL, lines BIGINT NOT NULL,
  received_ms BIGINT NOT NULL, segment BIGINT NOT NULL, line BIGINT NOT NULL,
  PRIMARY KEY (boot, seq, digest)) /* without rowid */;

-- `by_boot` says that `boot` had gone up to last_seq: its last rows may be lost.
CREATE TABLE claims (
  boot BIGINT NOT NULL, by_boot BIGINT NOT NULL, last_seq BIGINT NOT NULL, start_ms BIGINT NOT NULL,
  site BIGINT NOT NULL, PRIMARY KEY (boot, by_boot)) /* without rowid */;

-- Numbers that never came: between a window that began at after_ms (null: none) and one that began at before_ms.
CREATE TABLE gaps (
  boot BIGINT NOT NULL, first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL, site BIGINT NOT NULL, after_ms BIGINT,
  before_ms BIGINT NOT NULL, PRIMARY KEY (boot, first_seq)) /* without rowid */;
CREATE INDEX gaps_by_time ON gaps (site, before_ms);

-- Sums of `windows`; `day` is counted from 1970, UTC.
CREATE TABLE days (
  site BIGINT NOT NULL, day BIGINT NOT NULL, device BIGINT NOT NULL, terms BIGINT NOT NULL, quality BIGINT NOT NULL,
  {_columns(DAY_SUMS, "BIGINT NOT NULL")},
  first_received_ms BIGINT NOT NULL, last_received_ms BIGINT NOT NULL,
  PRIMARY KEY ({", ".join(DAY_KEY)})) /* without rowid */;

-- Sums of `days` by {SPAN_DAYS} of them, of spans that are over (`meta`: all below `spans`). told_late_ms, late_ms: how
-- long after the end of its day the first window of one came, the last, at the most.
{_SPANS};

CREATE TABLE dead (
  id BIGINT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, topic TEXT, received_ms BIGINT,
  segment BIGINT NOT NULL, line BIGINT NOT NULL, excerpt TEXT NOT NULL);
CREATE TABLE dead_kinds (kind TEXT PRIMARY KEY, lines BIGINT NOT NULL);

-- Confusion tables: `counts` is JSON, 7 rows of 8.
CREATE TABLE calibrations (
  role TEXT NOT NULL, digest TEXT NOT NULL, bundle TEXT NOT NULL, counts TEXT NOT NULL,
  PRIMARY KEY (role, digest));

-- What each device last said of itself. A part that never came is null; `health` is JSON.
CREATE TABLE fleet (
  device TEXT PRIMARY KEY, site TEXT NOT NULL, state TEXT, boot_id TEXT, version TEXT, since_ms BIGINT, trouble TEXT,
  status_ms BIGINT, health TEXT, health_ms BIGINT);

-- What devices were asked to send again. gone: it has none of these numbers, and was asked for the last time.
CREATE TABLE replays (
  boot BIGINT NOT NULL, first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL, asked_ms BIGINT NOT NULL,
  tries BIGINT NOT NULL, gone BIGINT NOT NULL, PRIMARY KEY (boot, first_seq, last_seq)) /* without rowid */;

-- Who does what only one of several may do, and until when.
CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until_ms BIGINT NOT NULL);

-- For dashboards: what counts of each site and UTC day.
CREATE VIEW site_days AS
  SELECT s.name AS site, d.day * 86400 AS day_s, SUM(d.windows) AS windows, SUM(d.duplicates) AS duplicates,
    SUM(d.covered_ppm_s) AS covered_ppm_s, SUM(d.milliseconds) AS milliseconds,
    {", ".join(f"SUM(d.{name}) AS {name}" for name in CELL_COLUMNS)}
  FROM days d JOIN sites s ON s.id = d.site WHERE d.quality <> {UNSYNCED} GROUP BY s.name, d.day;
""".split(";\n")[:-1]
)
"""Statements that make an empty store."""

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_END: Final = f"w.start_ms + w.milliseconds + {_HOUR_MS}"
_OVER: Final = f"(SELECT (n.value / {_DAY_MS} - 1) / {SPAN_DAYS} FROM meta n WHERE n.key = 'newest_ms')"
_CLOCK: Final = f"""
UPDATE meta SET value = COALESCE(
  (SELECT MAX(CASE WHEN w.received_ms < {_END} THEN w.received_ms ELSE {_END} END) FROM windows w
   WHERE w.site IN (SELECT id FROM sites) AND w.start_ms >= (SELECT MAX(last_start_ms) FROM boots) - {33 * _DAY_MS}),
  (SELECT MAX(last_start_ms) FROM boots), 0) WHERE key = 'newest_ms'"""
"""The store's clock as the merge has it now. A window has 31 days at most: what began earlier ended too early."""
_SPANS_AHEAD: Final = (
    f"DELETE FROM spans WHERE span >= {_OVER}",
    f"UPDATE meta SET value = {_OVER} WHERE key = 'spans' AND value > {_OVER}",
)
"""A clock that was far ahead had closed those to come."""

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {
    1: (_SPANS,),
    2: (_BY_CONTENT,),
    3: ("ALTER TABLE terms ADD COLUMN device BIGINT", _BY_VALUE, _CLOCK, *_SPANS_AHEAD),
}
"""From a version to the next: the statements, run in one transaction."""

"""The table of days: sums of windows by site, UTC day, device, terms and quality of time; and of spans, sums of days.

Every figure of whole days is read from them. A window more is an addition; where one is replaced, the day is summed
anew. A span is summed once when it is over, so that what comes in time is written to one table alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge_aggregate.store.engine import meta
from edge_aggregate.store.schema import (
    CELL_COLUMNS,
    DAY_COLUMNS,
    DAY_KEY,
    DAY_SUMS,
    DRAW_COLUMNS,
    SPAN_COLUMNS,
    SPAN_DAYS,
    WINDOW_COLUMNS,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from edge_aggregate.store.engine import Engine

DAY_MS: Final = 86_400_000

DayKey = tuple[int, int, int, int, int]

SPANS: Final = "spans"
"""In `meta`: spans before this one are summed."""


def covered_ppm_s(coverage: float, milliseconds: int) -> int:
    """Seconds that were looked at, in millionths: a whole number, so that sums have no order."""
    return round(coverage * 1_000_000) * milliseconds // 1000


def write_days(
    engine: Engine, days: Mapping[DayKey, Sequence[Sequence[Any]]], again: Collection[tuple[int, int]]
) -> None:
    """Add windows (`WINDOW_COLUMNS`) to the sums of their days; of the (site, day) in `again`, sum all there are."""
    engine.upsert(
        "days",
        DAY_COLUMNS,
        DAY_KEY,
        {name: f"days.{name} + excluded.{name}" for name in DAY_SUMS}
        | {
            "first_received_ms": f"{engine.least}(days.first_received_ms, excluded.first_received_ms)",
            "last_received_ms": f"{engine.greatest}(days.last_received_ms, excluded.last_received_ms)",
        },
        [(*key, *_summed(windows)) for key, windows in sorted(days.items()) if key[:2] not in again],
    )
    for site, day in sorted(again):
        engine.run("DELETE FROM days WHERE site = ? AND day = ?", (site, day))
        engine.run(f"INSERT INTO days ({', '.join(DAY_COLUMNS)}) {_ANEW}", (site, day * DAY_MS, (day + 1) * DAY_MS))


def renew_spans(engine: Engine, touched: Collection[tuple[int, int]]) -> None:
    """Bring spans up to date, once for all that a transaction did to the days (site, day) of `touched`.

    Those that are over for a day are summed; those that were, and to which something came after, are summed anew.
    """
    summed, over = spans_summed(engine), ((meta(engine, "newest_ms") or 0) // DAY_MS - 1) // SPAN_DAYS
    late = sorted({(site, day // SPAN_DAYS) for site, day in touched if day < summed * SPAN_DAYS})
    if late:
        engine.many("DELETE FROM spans WHERE site = ? AND span = ?", late)
        engine.many(
            f"INSERT INTO spans ({', '.join(SPAN_COLUMNS)}) {_of_spans(one_site=True)}",
            [(span * SPAN_DAYS, (span + 1) * SPAN_DAYS, site) for site, span in late],
        )
    if over > summed:
        sum_spans(engine, summed, over)
        engine.run("DELETE FROM meta WHERE key = ?", (SPANS,))
        engine.run("INSERT INTO meta VALUES (?, ?)", (SPANS, over))


def spans_summed(engine: Engine) -> int:
    """The spans before this one are summed."""
    return meta(engine, SPANS) or 0


def sum_spans(engine: Engine, first: int, stop: int) -> None:
    """Write the spans from `first` to before `stop` from their days."""
    sql = f"INSERT INTO spans ({', '.join(SPAN_COLUMNS)}) {_of_spans(one_site=False)}"
    engine.run(sql, (first * SPAN_DAYS, stop * SPAN_DAYS))


def spans_anew(engine: Engine, site: int, stop: int) -> list[tuple[int, ...]]:
    """`SPAN_COLUMNS` of a site up to a span, from its days."""
    return engine.fetch(_of_spans(one_site=True), (0, stop * SPAN_DAYS, site))


def _of_spans(*, one_site: bool) -> str:
    key = f"site, day / {SPAN_DAYS}, device, terms, quality"
    return (
        f"SELECT {key}, {', '.join(f'CAST(SUM({name}) AS BIGINT)' for name in DAY_SUMS)}, MIN(day), MAX(day),"
        f" MAX(first_received_ms - (day + 1) * {DAY_MS}), MAX(last_received_ms - (day + 1) * {DAY_MS})"
        f" FROM days WHERE day >= ? AND day < ?{' AND site = ?' if one_site else ''} GROUP BY {key}"
    )


def summed_anew(engine: Engine, site: int, first_day: int) -> list[tuple[int, ...]]:
    """`DAY_COLUMNS` of a site from a day on, from its windows."""
    return engine.fetch(_ANEW, (site, first_day * DAY_MS, _NEVER_MS))


def _summed(windows: Sequence[Sequence[Any]]) -> list[int]:
    """`DAY_SUMS`, and when the first and the last were received. Column by column: no number is touched in Python."""
    if len(windows) == 1:  # of a large fleet, nearly all that a batch has of a day
        (row,) = windows
        cells = [cell or 0 for cell in row[_CELLS : _CELLS + len(CELL_COLUMNS)]]
        received_ms = row[_RECEIVED]
        return [1, *[row[at] for at in _WHOLE], *cells, *row[_CELLS + len(CELL_COLUMNS) :], received_ms, received_ms]
    columns = list(zip(*windows, strict=True))
    sums = [sum(columns[place]) for place in _WHOLE]
    cells = [sum(filter(None, column)) for column in columns[_CELLS : _CELLS + len(CELL_COLUMNS)]]
    draws = [sum(column) for column in columns[_CELLS + len(CELL_COLUMNS) :]]
    received = columns[_RECEIVED]
    return [len(windows), *sums, *cells, *draws, min(received), max(received)]


_WHOLE: Final = [WINDOW_COLUMNS.index(name) for name in ("duplicates", "milliseconds", "covered_ppm_s")]
_CELLS: Final = WINDOW_COLUMNS.index(CELL_COLUMNS[0])
_RECEIVED: Final = WINDOW_COLUMNS.index("received_ms")

_NEVER_MS: Final = 2**62
_DAY: Final = f"w.start_ms / {DAY_MS}"  # of whole numbers, both engines make a whole number
_ANEW: Final = (
    f"SELECT w.site, {_DAY}, b.device, w.terms, w.quality, COUNT(*), CAST(SUM(w.duplicates) AS BIGINT),"
    " CAST(SUM(w.milliseconds) AS BIGINT), CAST(SUM(w.covered_ppm_s) AS BIGINT), "
    + ", ".join(f"CAST(SUM(COALESCE(w.{name}, 0)) AS BIGINT)" for name in (*CELL_COLUMNS, *DRAW_COLUMNS))
    + ", MIN(w.received_ms), MAX(w.received_ms) FROM windows w JOIN boots b ON b.id = w.boot"
    f" WHERE w.site = ? AND w.start_ms >= ? AND w.start_ms < ? GROUP BY w.site, {_DAY}, b.device, w.terms, w.quality"
)

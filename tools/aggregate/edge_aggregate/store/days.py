"""The table of days: sums of windows by site, UTC day, device, terms and quality of time.

Every figure of whole days is read from it. A window more is an addition; where one is replaced, the day is summed anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge_aggregate.store.schema import CELL_COLUMNS, DAY_COLUMNS, DAY_KEY, DAY_SUMS, DRAW_COLUMNS, WINDOW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from edge_aggregate.store.engine import Engine

DAY_MS: Final = 86_400_000

DayKey = tuple[int, int, int, int, int]


def covered_ppm_s(coverage: float, seconds: float) -> int:
    """Seconds that were looked at, in millionths: a whole number, so that sums have no order."""
    return round(coverage * 1_000_000) * round(seconds * 1000) // 1000


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


def summed_anew(engine: Engine, site: int, first_day: int) -> list[tuple[int, ...]]:
    """`DAY_COLUMNS` of a site from a day on, from its windows."""
    return engine.fetch(_ANEW, (site, first_day * DAY_MS, _NEVER_MS))


def _summed(windows: Sequence[Sequence[Any]]) -> list[int]:
    """`DAY_SUMS`, and when the first and the last were received. Column by column: no number is touched in Python."""
    columns = list(zip(*windows, strict=True))
    sums = [sum(columns[place]) for place in _WHOLE]
    cells = [sum(filter(None, column)) for column in columns[_CELLS : _CELLS + len(CELL_COLUMNS)]]
    draws = [sum(column) for column in columns[_CELLS + len(CELL_COLUMNS) :]]
    received = columns[WINDOW_COLUMNS.index("received_ms")]
    return [len(windows), *sums, *cells, *draws, min(received), max(received)]


_WHOLE: Final = [WINDOW_COLUMNS.index(name) for name in ("duplicates", "milliseconds", "covered_ppm_s")]
_CELLS: Final = WINDOW_COLUMNS.index(CELL_COLUMNS[0])

_NEVER_MS: Final = 2**62
_DAY: Final = f"w.start_ms / {DAY_MS}"  # of whole numbers, both engines make a whole number
_ANEW: Final = (
    f"SELECT w.site, {_DAY}, b.device, w.terms, w.quality, COUNT(*), CAST(SUM(w.duplicates) AS BIGINT),"
    " CAST(SUM(w.milliseconds) AS BIGINT), CAST(SUM(w.covered_ppm_s) AS BIGINT), "
    + ", ".join(f"CAST(SUM(COALESCE(w.{name}, 0)) AS BIGINT)" for name in (*CELL_COLUMNS, *DRAW_COLUMNS))
    + ", MIN(w.received_ms), MAX(w.received_ms) FROM windows w JOIN boots b ON b.id = w.boot"
    f" WHERE w.site = ? AND w.start_ms >= ? AND w.start_ms < ? GROUP BY w.site, {_DAY}, b.device, w.terms, w.quality"
)

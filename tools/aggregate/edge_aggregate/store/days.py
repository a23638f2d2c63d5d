"""The table of days: sums of windows by site, UTC day, device, terms and quality of time.

Every figure of whole days is read from it. A window more is an addition; where one is replaced, the day is summed anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_aggregate.store.schema import CELL_COLUMNS, DAY_COLUMNS, DAY_KEY, DAY_SUMS, DRAW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.decode import Row
    from edge_aggregate.store.engine import Engine

DAY_MS: Final = 86_400_000

DayKey = tuple[int, int, int, int, int]


def covered_ppm_s(coverage: float, seconds: float) -> int:
    """Seconds that were looked at, in millionths: a whole number, so that sums have no order."""
    return round(coverage * 1_000_000) * round(seconds * 1000) // 1000


def add_day(days: dict[DayKey, list[int]], key: DayKey, row: Row, duplicates: int) -> None:
    """Add a window to the sums of its day."""
    values = [1, duplicates, round(row.seconds * 1000), covered_ppm_s(row.coverage, row.seconds)]
    values += [cell or 0 for cell in row.cells]
    values += row.draws
    sums = days.get(key)
    if sums is None:
        days[key] = [*values, row.received_ms, row.received_ms]
        return
    for place, value in enumerate(values):
        sums[place] += value
    sums[-2] = min(sums[-2], row.received_ms)
    sums[-1] = max(sums[-1], row.received_ms)


def write_days(engine: Engine, days: dict[DayKey, list[int]], again: Iterable[tuple[int, int]]) -> None:
    """Add the sums to the table; of the (site, day) in `again`, sum every window instead."""
    again = set(again)
    added = [(*key, *sums) for key, sums in days.items() if key[:2] not in again]
    if added:
        plus = ", ".join(f"{name} = days.{name} + excluded.{name}" for name in DAY_SUMS)
        engine.many(
            f"INSERT INTO days ({', '.join(DAY_COLUMNS)}) VALUES ({', '.join('?' * len(DAY_COLUMNS))})"
            f" ON CONFLICT ({', '.join(DAY_KEY)}) DO UPDATE SET {plus},"
            f" first_received_ms = {engine.least}(days.first_received_ms, excluded.first_received_ms),"
            f" last_received_ms = {engine.greatest}(days.last_received_ms, excluded.last_received_ms)",
            added,
        )
    for site, day in sorted(again):
        engine.run("DELETE FROM days WHERE site = ? AND day = ?", (site, day))
        engine.run(
            f"INSERT INTO days ({', '.join(DAY_COLUMNS)}) {_SUMMED} AND w.site = ? AND w.start_ms >= ?"
            " AND w.start_ms < ? GROUP BY w.site, b.device, w.terms, w.quality",
            (day, site, day * DAY_MS, (day + 1) * DAY_MS),
        )


_SUMMED: Final = (
    "SELECT w.site, CAST(? AS BIGINT), b.device, w.terms, w.quality, COUNT(*), CAST(SUM(w.duplicates) AS BIGINT),"
    " CAST(SUM(w.milliseconds) AS BIGINT), CAST(SUM(w.covered_ppm_s) AS BIGINT), "
    + ", ".join(f"CAST(SUM(COALESCE(w.{name}, 0)) AS BIGINT)" for name in (*CELL_COLUMNS, *DRAW_COLUMNS))
    + ", MIN(w.received_ms), MAX(w.received_ms) FROM windows w JOIN boots b ON b.id = w.boot WHERE TRUE"
)

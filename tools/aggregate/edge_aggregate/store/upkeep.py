"""What a store needs now and then: a copy, a look at whether it is sound, an end to what is old."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import ConfigError, StorageError
from edge_aggregate.decode import instant
from edge_aggregate.store.boots import GAP_COLUMNS, find_gaps, gaps_of
from edge_aggregate.store.days import DAY_MS, spans_anew, spans_summed, sum_spans, summed_anew
from edge_aggregate.store.merge import KEPT_FROM, count_merge, kept_from
from edge_aggregate.store.schema import DAY_COLUMNS, SPAN_COLUMNS, SPAN_DAYS, TABLES
from edge_aggregate.store.sqlite import SqliteEngine
from edge_aggregate.store.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from edge_aggregate.store.engine import Engine
    from edge_aggregate.store.store import Store

_NAMES: Final = [found[1] for found in map(re.compile(r"CREATE TABLE (\w+)").search, TABLES) if found]
_SHOWN: Final = 20


def backup(store: Store, path: Path) -> None:
    """A copy in an SQLite file, as of now, while the store is written. Raises StorageError, also if `path` is there.

    It is a store: it can be opened in the place of the first, or copied into another (`restore`).
    """
    if isinstance(store.engine, SqliteEngine):
        store.engine.backup(path)
        return
    if path.exists():
        msg = f"{path}: is there already: name another file"
        raise StorageError(msg)
    part = path.with_name(f"{path.name}.tmp")
    part.unlink(missing_ok=True)
    with open_store(str(part), create=True) as copy:
        _copy(store.engine, copy.engine)
        copy.engine.run("PRAGMA journal_mode = DELETE")  # one file, without neighbours
    part.rename(path)


def restore(path: Path, store: Store) -> None:
    """Fill an empty store, of either engine, with a backup. Raises StorageError when it is not empty."""
    if any(store.engine.fetch(f"SELECT 1 FROM {table} LIMIT 1") for table in _NAMES if table != "meta"):
        msg = f"{store.engine.name}: is not empty: restore into a new store"
        raise StorageError(msg)
    with open_store(str(path), read_only=True) as source:
        _copy(source.engine, store.engine)


def _copy(source: Engine, target: Engine) -> None:
    """Every row of every table, a run of a device at a time."""
    file = source if isinstance(source, SqliteEngine) else target  # which of the two can say so simply
    with source.reading(), target.writing():
        target.run("DELETE FROM meta")
        for table in _NAMES:
            columns = [name for (name,) in file.fetch("SELECT name FROM pragma_table_info(?)", (table,))]
            sql = f"SELECT {', '.join(columns)} FROM {table}"
            if table != "windows":
                target.load(table, columns, source.fetch(sql))
                continue
            for boot in source.fetch("SELECT id FROM boots ORDER BY id"):
                target.load(table, columns, source.fetch(f"{sql} WHERE boot = ? ORDER BY seq", boot))


def check_store(store: Store) -> list[str]:
    """What is wrong with it, a line each; nothing when it is sound.

    The file's own integrity, days against the sums of their windows and spans of days against those, gaps and runs
    against their windows.
    """
    engine = store.engine
    try:
        found = engine.sound()
        if not found:
            with engine.reading():
                found = [*_orphans(engine), *_wrong_days(engine), *_wrong_spans(engine), *_wrong_boots(engine)]
    except StorageError as error:  # so damaged that it cannot be asked
        return [str(error)]
    return [*found[:_SHOWN], *([f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])]


def _orphans(engine: Engine) -> list[str]:
    found = []
    for column, table in (("boot", "boots"), ("site", "sites"), ("terms", "terms"), ("segment", "segments")):
        ((count,),) = engine.fetch(
            f"SELECT COUNT(*) FROM windows w WHERE NOT EXISTS (SELECT 1 FROM {table} t WHERE t.id = w.{column})"
        )
        if count:
            found.append(f"windows: {count} of a {column} that is not there")
    return found


def _wrong_days(engine: Engine) -> list[str]:
    """Days that are not what their windows add up to; of those whose windows were dropped nothing can be said."""
    first = kept_from(engine) // DAY_MS
    columns = ", ".join(DAY_COLUMNS)
    found = []
    for site, name in engine.fetch("SELECT id, name FROM sites ORDER BY id"):
        kept = set(engine.fetch(f"SELECT {columns} FROM days WHERE site = ? AND day >= ?", (site, first)))
        wrong = kept ^ set(summed_anew(engine, site, first))
        found += [
            f"days: {name}, {_date(day)} is not the sum of its windows" for day in sorted({row[1] for row in wrong})
        ]
    return found


def _wrong_spans(engine: Engine) -> list[str]:
    """Spans that are not what their days add up to."""
    summed = spans_summed(engine)
    columns = ", ".join(SPAN_COLUMNS)
    found = []
    for site, name in engine.fetch("SELECT id, name FROM sites ORDER BY id"):
        kept = set(engine.fetch(f"SELECT {columns} FROM spans WHERE site = ?", (site,)))
        wrong = kept ^ set(spans_anew(engine, site, summed))
        found += [
            f"spans: {name}, the {SPAN_DAYS} days from {_date(span * SPAN_DAYS)} are not the sum of its days"
            for span in sorted({row[1] for row in wrong})
        ]
    return found


def _date(day: int) -> str:
    return instant(day * DAY_MS).date().isoformat()


def _wrong_boots(engine: Engine) -> list[str]:
    gaps: dict[int, list[tuple[object, ...]]] = {}
    for gap in engine.fetch(f"SELECT {', '.join(GAP_COLUMNS)} FROM gaps ORDER BY boot, first_seq"):
        gaps.setdefault(gap[0], []).append(gap)
    found = []
    for number, name, boot_id, floor, top, held in engine.fetch(
        "SELECT b.id, d.name, b.boot_id, b.floor_seq, b.top_seq,"
        " (SELECT COALESCE(MAX(seq), 0) FROM windows w WHERE w.boot = b.id)"
        " FROM boots b JOIN devices d ON d.id = b.device ORDER BY b.id"
    ):
        if gaps.get(number, []) != gaps_of(engine, number, floor, floor):
            found.append(f"gaps: {name} {boot_id[:8]} misses other numbers than its windows say")
        if held > top:
            found.append(f"boots: {name} {boot_id[:8]} has a window {held} beyond its greatest, {top}")
    return found


class Retained(NamedTuple):
    """What `retain` dropped: all that began before `before_ms` (a midnight, UTC)."""

    before_ms: int
    windows: int
    gaps: int
    days: int
    variants: int
    dead: int
    fleet: int


_RETIRED: Final = Retained._fields[1:]
"""The tables of which it says how many rows went."""


def retain(store: Store, days: int, *, days_too: bool = False) -> Retained:
    """Drop windows that began more than so many days before the newest `received`, and say what was dropped.

    Their gaps, contradictions and dead letters go with them, devices not heard of since, and terms that nothing was
    counted under any more. The sums of their days stay, unless `days_too`; figures of whole days are as before. What
    comes later of that time is a dead letter (`retired`).

    Raises ConfigError for less than `RETAIN_LEAST` days, and StorageError.
    """
    if days < RETAIN_LEAST:
        msg = f"keep at least {RETAIN_LEAST} days: in them figures become final, and are compared with those before"
        raise ConfigError(msg)
    engine = store.engine
    with engine.writing():
        before = max((store.newest_ms // DAY_MS - days) * DAY_MS, kept_from(engine))
        counts = [_count(engine, table) for table in _RETIRED]
        for (boot,) in engine.fetch(
            "SELECT boot FROM windows WHERE start_ms < ? UNION SELECT boot FROM gaps WHERE before_ms < ? ORDER BY 1",
            (before, before),
        ):
            _retire(engine, boot, before)
        engine.run("DELETE FROM dead WHERE received_ms < ?", (before,))
        engine.run(
            "DELETE FROM fleet WHERE COALESCE(status_ms, 0) < ? AND COALESCE(health_ms, 0) < ?", (before, before)
        )
        if days_too:
            engine.run("DELETE FROM days WHERE day < ?", (before // DAY_MS,))
            cut = before // DAY_MS // SPAN_DAYS  # of this span some days may be left
            engine.run("DELETE FROM spans WHERE span <= ?", (cut,))
            sum_spans(engine, cut, min(cut + 1, spans_summed(engine)))
        engine.run(
            "DELETE FROM terms WHERE id NOT IN"
            " (SELECT terms FROM windows UNION SELECT terms FROM days UNION SELECT terms FROM spans)"
        )
        engine.run("DELETE FROM meta WHERE key = ?", (KEPT_FROM,))
        engine.run("INSERT INTO meta VALUES (?, ?)", (KEPT_FROM, before))
        count_merge(engine)
        left = [_count(engine, table) for table in _RETIRED]
    return Retained(before, *(was - now for was, now in zip(counts, left, strict=True)))


RETAIN_LEAST: Final = 65
"""Days: 30 until every figure is final, and the 28 and more before it with which a period is compared."""


def _count(engine: Engine, table: str) -> int:
    return int(engine.fetch(f"SELECT COUNT(*) FROM {table}")[0][0])


def _retire(engine: Engine, boot: int, before: int) -> None:
    """Drop a run's windows up to the first that is kept. One that is old by a clock that jumped waits for its turn.

    `floor_seq` keeps the account of gaps true: numbers up to it were here, or were missing then.
    """
    ((floor, first_kept),) = engine.fetch(
        "SELECT floor_seq, (SELECT MIN(seq) FROM windows WHERE boot = boots.id AND start_ms >= ?) FROM boots"
        " WHERE id = ?",
        (before, boot),
    )
    below = "" if first_kept is None else f" AND seq < {int(first_kept)}"
    ((top,),) = engine.fetch(f"SELECT COALESCE(MAX(seq), 0) FROM windows WHERE boot = ?{below}", (boot,))
    floor = max(floor, top)
    if first_kept is None:  # and so are the last numbers of it that never came
        ((claimed,),) = engine.fetch(
            "SELECT COALESCE(MAX(last_seq), 0) FROM claims WHERE boot = ? AND start_ms < ?", (boot, before)
        )
        floor = max(floor, claimed)
    engine.run("UPDATE boots SET floor_seq = ? WHERE id = ?", (floor, boot))
    for table in ("windows", "variants"):
        engine.run(f"DELETE FROM {table} WHERE boot = ? AND seq <= ?", (boot, floor))
    for table in ("gaps", "replays"):
        engine.run(f"DELETE FROM {table} WHERE boot = ? AND last_seq <= ?", (boot, floor))
    engine.load("gaps", GAP_COLUMNS, find_gaps(engine, boot, floor, floor))

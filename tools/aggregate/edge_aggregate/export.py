"""Figures as files for other programs: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from edge.contract import utc_text
from edge.errors import SourceError
from edge_aggregate.decode import instant
from edge_aggregate.store.schema import CELL_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import tzinfo
    from pathlib import Path
    from typing import TextIO

    from edge_aggregate.figures import Figure
    from edge_aggregate.store import Store


FIGURES: Final = {
    **dict.fromkeys(("site", "granularity", "zone", "from", "to"), "string"),
    **dict.fromkeys(("happy", "n"), "int64"),
    **dict.fromkeys(("index", "low", "high", "index_corrected", "low_corrected", "high_corrected"), "float64"),
    **dict.fromkeys(("coverage", "reported"), "float64"),
    **dict.fromkeys(("devices", "windows", "unsynced", "duplicates", "missing"), "int64"),
    "state": "string",
    **dict.fromkeys(CELL_COLUMNS, "int64"),
}
LETTERS: Final = {
    **dict.fromkeys(("kind", "reason", "topic", "received", "segment"), "string"),
    "line": "int64",
    "excerpt": "string",
}
"""Columns and their types, which a file has without a row too, and where nothing but nulls is in one."""


def rows_of(found: Iterable[Figure], place: tzinfo, granularity: str) -> list[dict[str, Any]]:
    """A row per figure. `zone` and `granularity` say what its times mean; `from` and `to` carry the zone's offset."""
    rows = []
    for figure in found:
        body = figure.json()
        rows.append(
            {
                "site": body.pop("site"),
                "granularity": granularity,
                "zone": str(place),
                "from": instant(figure.start_ms).astimezone(place).isoformat(),
                "to": instant(figure.end_ms).astimezone(place).isoformat(),
                **{key: value for key, value in body.items() if key not in ("from", "to")},
                **dict(zip(CELL_COLUMNS, figure.cells, strict=True)),
            }
        )
    return rows


def dead_letters(store: Store, newest: int | None = None) -> list[dict[str, Any]]:
    """The newest dead letters, and the payloads that lost their key to another; with the line each came in.

    In the order in which they were received; a line that does not say when stays behind the one before it. `newest`:
    the last so many.
    """
    rows: list[tuple[int, tuple[Any, ...]]] = []
    at = 0
    limit = "" if newest is None else f" LIMIT {newest:d}"
    for row in store.engine.fetch(
        "SELECT d.kind, d.reason, d.topic, d.received_ms, s.name, d.line, d.excerpt FROM dead d"
        f" JOIN segments s ON s.id = d.segment ORDER BY d.id DESC{limit}"
    )[::-1]:
        at = at if row[3] is None else row[3]
        rows.append((at, row))
    for device, boot_id, seq, received_ms, name, line, payload in store.engine.fetch(
        "SELECT d.name, b.boot_id, v.seq, v.received_ms, s.name, v.line, v.payload FROM variants v"
        " JOIN boots b ON b.id = v.boot JOIN devices d ON d.id = b.device JOIN segments s ON s.id = v.segment"
        f" WHERE v.digest <> '' ORDER BY v.received_ms DESC, v.digest DESC{limit}"
    )[::-1]:
        reason = f"another payload is kept of {device} {boot_id}/{seq}"
        rows.append((received_ms, ("conflict", reason, None, received_ms, name, line, payload[:1000])))
    rows = sorted(rows, key=itemgetter(0))
    return [
        dict(zip(LETTERS, (*row[:3], None if row[3] is None else utc_text(instant(row[3])), *row[4:]), strict=True))
        for _, row in (rows if newest is None else rows[-newest:])
    ]


def write_csv(rows: list[dict[str, Any]], columns: Mapping[str, str], file: TextIO) -> None:
    """With a header; empty where a value is null. No cell begins as a formula does."""
    writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)


def _plain(value: object) -> object:
    """A stranger's text that a spreadsheet would run is quoted; a negative number is none."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def write_parquet(rows: list[dict[str, Any]], columns: Mapping[str, str], path: Path) -> None:
    """Typed columns. Raises SourceError when the file cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("wb") as file:  # pyarrow's own words about a path are three lines long
            pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(columns.items()))), file)
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: name a file in a folder that is there, with room"
        raise SourceError(msg) from error

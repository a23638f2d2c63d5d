"""A store in one SQLite file.

WAL, so that dashboards read while it is written; FULL, so that what was acknowledged survives a power cut.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.errors import StorageError
from edge_aggregate.store.engine import BUSY_S, meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edge_aggregate.store.engine import Value

AT_ONCE: Final = 400
"""Keys of a query, which costs less than a query of each: two values a key stay below the 999 that any SQLite takes."""


class SqliteEngine:
    """One connection to a file, or to `:memory:`. Not for more than one thread.

    Raises StorageError when the file is no store, cannot be opened, or (`create=False`) is not there.
    """

    least, greatest = "min", "max"

    def __init__(self, path: str, *, create: bool, read_only: bool = False, busy_s: float = BUSY_S) -> None:
        self.name = path
        self._busy_s = busy_s
        self._read_only = read_only
        if not path:
            msg = "the store's address is empty: give the path of a file"
            raise StorageError(msg)
        if path != ":memory:":
            file = Path(path)
            # No `Path.exists`: it raises for a name too long, and for a folder that may not be looked into.
            if not create and not os.path.exists(path):  # noqa: PTH110
                msg = f"{path}: no store is there: `edge-aggregate ingest --store {path} …` makes one"
                raise StorageError(msg)
            if create and not os.path.isdir(file.parent):  # noqa: PTH112
                msg = f"{path}: the folder {file.parent} is not there: make it first"
                raise StorageError(msg)
        with self._errors():
            self._database = sqlite3.connect(path, timeout=busy_s, isolation_level=None, cached_statements=256)
            self._database.execute("PRAGMA cache_size = -65536")
            self.version()  # before anything is changed: another program's database stays as it is
            if read_only:
                self._database.execute("PRAGMA query_only = ON")
            else:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Engine`."""
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._errors():
                self._database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See `Engine`."""
        with self._errors():
            self._database.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def fetch(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """See `Engine`."""
        with self._errors():
            return self._database.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        """See `Engine`."""
        sql = sql.replace("/* without rowid */", "WITHOUT ROWID")
        with self._errors():
            return self._database.execute(sql, values).rowcount

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """See `Engine`."""
        with self._errors():
            self._database.executemany(sql, rows)

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """See `Engine`."""
        with self._errors():
            self._database.executemany(_insert(table, columns), rows)

    def upsert(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        changes: Mapping[str, str],
        rows: Sequence[Sequence[Value]],
    ) -> None:
        """See `Engine`."""
        plus = ", ".join(f"{name} = {what}" for name, what in changes.items())
        with self._errors():
            self._database.executemany(
                f"{_insert(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {plus}", rows
            )

    def match(
        self, table: str, on: Sequence[str], wanted: Sequence[Sequence[int | str]], columns: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """See `Engine`."""
        keys, one = ", ".join(on), f"({', '.join('?' * len(on))})"
        found: list[tuple[Any, ...]] = []
        with self._errors():
            for first in range(0, len(wanted), AT_ONCE):
                some = wanted[first : first + AT_ONCE]
                found += self._database.execute(
                    f"WITH wanted ({keys}) AS (VALUES {', '.join([one] * len(some))})"
                    # CROSS: each wanted key is looked up, whatever the planner thinks of the table.
                    f" SELECT {', '.join(columns)} FROM wanted CROSS JOIN {table} USING ({keys})",
                    [value for key in some for value in key],
                )
        return found

    def version(self) -> int | None:
        """See `Engine`. Raises StorageError for a database of another program."""
        tables = {name for (name,) in self.fetch("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            return None
        version = None
        if {"meta", "windows", "segments"} <= tables:
            with suppress(StorageError):  # a table of that name with other columns
                version = meta(self, "schema")
        if not isinstance(version, int):  # nor one of that name with a text in it
            msg = f"{self.name}: is a database of another program: name another path"
            raise StorageError(msg)
        return version

    def backup(self, path: Path) -> None:
        """A copy of the whole store as it is now, while it is written. Raises StorageError if `path` is there."""
        if path.exists():
            msg = f"{path}: is there already: name another file"
            raise StorageError(msg)
        try:
            self._database.execute("VACUUM INTO ?", (str(path),))
        except sqlite3.Error as error:
            with suppress(OSError):
                path.unlink()  # half a copy, which was not there before
            of_copy = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL)
            msg = f"{path if _code(error) in of_copy else self.name}: {_advice(error, self._busy_s)}"
            raise StorageError(msg) from error

    def sound(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; nothing when it is sound."""
        return [text for (text,) in self.fetch("PRAGMA integrity_check(20)") if text != "ok"]

    def close(self) -> None:
        """See `Engine`."""
        with suppress(sqlite3.Error):
            self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Those of the database come out as StorageError, in one line."""
        try:
            yield
        except sqlite3.Error as error:
            if self._read_only and _code(error) == sqlite3.SQLITE_READONLY:
                msg = (
                    f"{self.name}: cannot be read by this user while nobody writes it, since SQLite keeps two files "
                    f"beside it: let this user write to its folder, or read a copy in a folder of its own"
                )
                raise StorageError(msg) from error
            msg = f"{self.name}: {_advice(error, self._busy_s)}"
            raise StorageError(msg) from error


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _advice(error: sqlite3.Error, busy_s: float) -> str:
    """What is wrong, and what to do."""
    text = str(error)
    known = {
        sqlite3.SQLITE_FULL: "the disk is full: make room; what was committed is kept",
        sqlite3.SQLITE_BUSY: f"another program has been writing for {busy_s:.0f} s: wait, or end it",
        sqlite3.SQLITE_NOTADB: "is no store (not an SQLite file): name another path",
        sqlite3.SQLITE_CORRUPT: "is damaged: restore a backup, or ingest the landing log into a new file; how, "
        "`edge-aggregate check --store` says, if it can be opened at all",
        sqlite3.SQLITE_READONLY: "cannot be written: check the owner of the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the path and its permissions",
    }
    return known.get(_code(error), text)

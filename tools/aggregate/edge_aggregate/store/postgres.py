"""A store in a PostgreSQL database, which several subscribers and dashboards share.

One writer at a time: whoever merges holds an advisory lock, so that ids are given as in a file. A connection that was
lost is made anew when the next transaction begins. The batch it was lost in is the caller's to try again, which does no
harm whether it had been committed or not: `segments` says how far each log is in.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict

from edge.errors import StorageError
from edge_aggregate.store.engine import BUSY_S, meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg.abc import Buffer

    from edge_aggregate.store.engine import Value

SILENT_S: Final = 60
"""After this long without a word inside a transaction the server takes the lock from a writer, or we give up on it."""

LOCK: Final = 0x65646765
"""The advisory lock of whoever writes; advisory locks are of one database."""

_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
_TABLES: Final = frozenset(
    {"meta", "sites", "devices", "boots", "terms", "segments", "windows", "days", "gaps", "dead"}
)


class _WholeLoader(Loader):
    """Sums of BIGINT are `numeric` here; as in SQLite they are whole, and averages are not."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if b"." not in text and b"N" not in text else float(text)


class PostgresEngine:
    """One connection. Not for more than one thread.

    Raises StorageError when the server cannot be reached, refuses, or the database is another program's.
    """

    least, greatest = "LEAST", "GREATEST"

    def __init__(self, address: str, *, read_only: bool = False, busy_s: float = BUSY_S) -> None:
        self._busy_s = busy_s
        self._read_only = read_only
        self._depth = 0
        self._known_types: dict[str, dict[str, str]] = {}
        self._parameters, self.name = _parse(address)
        self._database = self._connect()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        own = [
            f"idle_in_transaction_session_timeout={SILENT_S}s",
            f"lock_timeout={round(self._busy_s * 1000)}ms",
            *(["default_transaction_read_only=on"] if self._read_only else []),
        ]
        session = f"{self._parameters.get('options', '')} {' '.join(f'-c {setting}' for setting in own)}"
        named = {"connect_timeout": 10, "application_name": "edge-aggregate", "tcp_user_timeout": SILENT_S * 1000}
        wanted = {**named, **_KEEPALIVE, **self._parameters, "options": session.strip()}
        with self._errors():
            database = psycopg.connect("", autocommit=True, client_encoding="UTF8", **wanted)
        database.adapters.register_loader("numeric", _WholeLoader)
        return database

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Engine`."""
        with self._transaction("BEGIN"):
            with self._errors():
                self._database.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See `Engine`."""
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._outside(begin)
        self._depth += 1
        try:
            yield
            with self._errors():
                self._database.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):  # a server that is gone has rolled back by itself
                self._database.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def _outside(self, sql: str, values: Sequence[Value] | None = None) -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute what nothing depends on yet: a connection that turns out to be lost is made anew, once."""
        if not self._depth:
            if not self._database.closed:
                with suppress(psycopg.OperationalError):
                    return self._database.execute(sql, values)
            if self._database.closed:
                self._database = self._connect()
        with self._errors():
            return self._database.execute(sql, values)

    def fetch(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """See `Engine`."""
        cursor = self._outside(*_bound(sql, values))
        with self._errors():
            return cursor.fetchall()

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        """See `Engine`."""
        with self._errors():
            return self._database.execute(*_bound(sql, values)).rowcount

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """See `Engine`."""
        with self._errors(), self._database.cursor() as cursor:
            cursor.executemany(_translated(sql), rows)

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """See `Engine`."""
        if not rows:
            return
        with self._errors(), self._database.cursor() as cursor:
            types = self._types(table)
            with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types([types[name] for name in columns])
                for row in rows:
                    copy.write_row(row)

    def upsert(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        changes: Mapping[str, str],
        rows: Sequence[Sequence[Value]],
    ) -> None:
        """See `Engine`."""
        if not rows:
            return
        names = ", ".join(columns)
        self.run(f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming_{table} (LIKE {table}) ON COMMIT DELETE ROWS")
        self.load(f"incoming_{table}", columns, rows)
        plus = ", ".join(f"{name} = {what}" for name, what in changes.items())
        self.run(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming_{table}"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {plus}"
        )
        self.run(f"TRUNCATE incoming_{table}")

    def match(
        self, table: str, on: Sequence[str], wanted: Sequence[Sequence[int | str]], columns: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """See `Engine`."""
        if not wanted:
            return []
        with self._errors():
            types = self._types(table)
            arrays = ", ".join(f"%s::{types[name]}[]" for name in on)
            sql = f"SELECT {', '.join(columns)} FROM {table} JOIN unnest({arrays}) AS wanted ({', '.join(on)})"
            return self._database.execute(
                f"{sql} USING ({', '.join(on)})", [list(place) for place in zip(*wanted, strict=True)]
            ).fetchall()

    def _types(self, table: str) -> dict[str, str]:
        """The type of each column of a table."""
        table = table.removeprefix("incoming_")
        if table not in self._known_types:
            self._known_types[table] = dict(
                self._database.execute(
                    "SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = %s::regclass"
                    " AND attnum > 0 AND NOT attisdropped",
                    (table,),
                ).fetchall()
            )
        return self._known_types[table]

    def version(self) -> int | None:
        """See `Engine`. Raises StorageError for tables of another program."""
        tables = {name for (name,) in self.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")}
        if not tables & _TABLES:
            return None
        if not {"meta", "windows", "segments"} <= tables:
            msg = f"{self.name}: holds tables of another program: name another database"
            raise StorageError(msg)
        return meta(self, "schema")

    def sound(self) -> list[str]:
        """See `Engine`: the server's own business; every row of every index's table is read all the same."""
        for (table,) in self.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"):
            self.fetch(f"SELECT COUNT(*) FROM {table}")
        return []

    def close(self) -> None:
        """See `Engine`."""
        with suppress(psycopg.Error):
            self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Those of the database come out as StorageError, in one line."""
        try:
            yield
        except psycopg.Error as error:
            msg = f"{self.name}: {_advice(error, self._busy_s)}"
            raise StorageError(msg) from None  # its text may hold the address, password and all


def _parse(address: str) -> tuple[dict[str, Any], str]:
    """What to connect with, and the address as it may be shown. Raises StorageError without repeating a password."""
    place, _, rest = address.partition("://")[2].partition("/")
    split = place.count("@") > 1 or "@" in rest.partition("?")[0]  # by a password: libpq would take it for a host
    try:
        found = {} if split else conninfo_to_dict(address)
    except psycopg.Error:
        found = {}
    if not found or not re.fullmatch(r"[\d,]*", str(found.get("port", ""))):
        msg = (
            "the store's address cannot be read: write postgresql://user@host:5432/database; in a password / @ : %"
            " are %2F %40 %3A %25, or leave it out and put it into ~/.pgpass"
        )
        raise StorageError(msg)
    host, port = found.get("host") or found.get("hostaddr") or "", found.get("port")
    user = f"{quote(str(found['user']))}@" if "user" in found else ""
    shown = f"postgresql://{user}{quote(str(host), safe='/,[]:')}{f':{port}' if port else ''}/{found.get('dbname', '')}"
    return found, shown


_TOKENS: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\?|%", re.DOTALL)


@lru_cache(256)
def _translated(sql: str) -> str:
    """`?` to `%s`, except in texts, names and comments; `%` is doubled everywhere."""
    return _TOKENS.sub(lambda found: "%s" if found[0] == "?" else found[0].replace("%", "%%"), sql)


def _bound(sql: str, values: Sequence[Value]) -> tuple[str, Sequence[Value] | None]:
    return (_translated(sql), values) if values else (sql, None)


_KNOWN: Final = {
    "28P01": "the server refuses the password: mend it in the address or in ~/.pgpass",
    "28000": "the server refuses this user from here: create the role, or mend the server's pg_hba.conf",
    "3D000": "the server has no such database: `createdb` makes one",
    "25006": "the store was opened for reading only, or the server is a standby: write to the primary",
    "42501": "this user may not do that: grant it the database's schema (GRANT ALL ON SCHEMA public)",
    "53100": "the server's disk is full: make room; what was committed is kept",
    "53300": "the server has no connection left: end a client, or raise max_connections",
    "57P03": "the server is starting or ending: try again",
}
_WORDS: Final = {  # of libpq, which gives no code for what went wrong before a connection was there
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    'role "': "28000",
    'database "': "3D000",
    "too many": "53300",
    "remaining connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
}


def _advice(error: psycopg.Error, busy_s: float) -> str:
    """What is wrong, and what to do, in one line."""
    text = " ".join(str(error).split())
    code = error.sqlstate or next((code for words, code in _WORDS.items() if words in text), "")
    if code == "55P03":
        return f"another program has been writing for {busy_s:g} s: wait, or end it"
    if code in _KNOWN:
        return _KNOWN[code]
    if code.startswith("XX") or code in {"58030", "58P01"}:
        return f"the database is damaged ({text[:150]}): restore a backup or ingest the log anew"
    if isinstance(error, psycopg.OperationalError):
        return (
            f"the server cannot be reached, or went away ({text[:150]}): try again when it is up; no batch is half in"
        )
    return text[:300]

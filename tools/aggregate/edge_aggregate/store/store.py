"""A store, whatever it lives in: opened by its address, given batches, asked what it holds."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from edge.errors import StorageError
from edge_aggregate.calibration import Table
from edge_aggregate.store.engine import BUSY_S, meta
from edge_aggregate.store.merge import Merged, Progress, count_merge, merge
from edge_aggregate.store.schema import MIGRATIONS, TABLES, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from edge_aggregate.store.engine import Engine
    from edge_aggregate.store.merge import Batch

POSTGRES: Final = ("postgresql://", "postgres://")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Store:
    """Counted windows. One thread; close it, or use it as a context.

    Every method raises StorageError, in one line, when the database cannot do it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def merge(self, batches: Iterable[Batch]) -> Merged:
        """Commit batches of a landing log, all or none; those committed before change nothing."""
        return merge(self.engine, batches)

    def progress(self, segment: str) -> Progress | None:
        """How far a segment is in."""
        found = self.engine.fetch("SELECT name, lines, bytes, sha256 FROM segments WHERE name = ?", (segment,))
        return Progress(*found[0]) if found else None

    def same(self, size: int, sha256: str) -> str | None:
        """The name under which this very content is in already."""
        found = self.engine.fetch("SELECT name FROM segments WHERE bytes = ? AND sha256 = ?", (size, sha256))
        return str(found[0][0]) if found else None

    @property
    def newest_ms(self) -> int:
        """The store's clock: the newest `received` of all windows, 0 before there is one.

        An hour after a window ended where that is earlier: one message received by a clock far ahead must not blank
        every page until then.
        """
        return meta(self.engine, "newest_ms") or 0

    @property
    def merges(self) -> int:
        """How often something was merged or registered: while it stays, nothing has changed."""
        return meta(self.engine, "merges") or 0

    def register(self, tables: Iterable[Table]) -> int:
        """Keep confusion tables, the newer of two for a model; how many were new or other than before."""
        with self.engine.writing():
            before = {table.key: table for table in self.tables()}
            new = [table for table in tables if before.get(table.key) != table]
            for table in new:
                self.engine.run("DELETE FROM calibrations WHERE role = ? AND digest = ?", table.key)
                self.engine.run(
                    "INSERT INTO calibrations VALUES (?, ?, ?, ?)", (*table.key, table.bundle, json.dumps(table.counts))
                )
            count_merge(self.engine)
        return len(new)

    def tables(self) -> list[Table]:
        """The confusion tables that were registered."""
        return [
            Table(role, digest, tuple(map(tuple, json.loads(counts))), bundle)
            for role, digest, bundle, counts in self.engine.fetch(
                "SELECT role, digest, bundle, counts FROM calibrations ORDER BY role, digest"
            )
        ]

    def close(self) -> None:
        """Let go of the database."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(address: str, *, create: bool = False, read_only: bool = False, busy_s: float = BUSY_S) -> Store:
    """Open a store: the path of an SQLite file, `:memory:`, or `postgresql://user@host/database`.

    `busy_s`: how long a writer waits for another one before it says so.

    Raises StorageError when it is not there (and `create` is not said), cannot be opened or is of a newer version.
    """
    if address.startswith(POSTGRES):
        from edge_aggregate.store.postgres import PostgresEngine

        engine: Engine = PostgresEngine(address, read_only=read_only, busy_s=busy_s)
    elif scheme := _SCHEME.match(address):  # what follows may hold a password
        msg = f"--store {scheme[0]}…: is no store: give the path of a file, or postgresql://user@host/database"
        raise StorageError(msg)
    else:
        from edge_aggregate.store.sqlite import SqliteEngine

        engine = SqliteEngine(address, create=create, read_only=read_only, busy_s=busy_s)
    try:
        _prepare(engine, create=create, read_only=read_only)
    except BaseException:
        engine.close()
        raise
    return Store(engine)


def _prepare(engine: Engine, *, create: bool, read_only: bool) -> None:
    """Make the tables, or bring them to this version."""
    version = engine.version()
    if version is None and create:
        with engine.writing():
            if engine.version() is None:  # nobody was faster
                for statement in TABLES:
                    engine.run(statement)
                engine.run("INSERT INTO meta VALUES ('schema', ?)", (VERSION,))
        return
    if version is None:
        msg = f"{engine.name}: holds no store: `edge-aggregate ingest --store …` makes one"
        raise StorageError(msg)
    if version > VERSION:
        msg = f"{engine.name}: was made by a newer edge-aggregate (schema {version}, this one knows {VERSION}): upgrade"
        raise StorageError(msg)
    if version < VERSION and read_only:
        msg = f"{engine.name}: was made by an older edge-aggregate (schema {version}): run `ingest` once to bring it up"
        raise StorageError(msg)
    while version < VERSION:
        with engine.writing():
            version = engine.version() or version  # somebody may have been faster
            if version < VERSION:
                for statement in MIGRATIONS[version]:
                    engine.run(statement)
                version += 1
                engine.run("UPDATE meta SET value = ? WHERE key = 'schema'", (version,))
